//! The frames between host and REPL. The driver in `guest/python` speaks them too.
//!
//! Rules on top of the shapes:
//! - One frame is one packet of the REPL's own socket: one JSON document of at most 64 KiB, with exactly the descriptors
//!   that its shape names.
//! - `go` comes first and once; the REPL answers `ready`, or `failed` and ends. After that each request gets exactly one
//!   answer, and nothing is said unasked.
//! - A cell that was given tools may say `called` before it ends, in as many frames as it takes; the last of them says
//!   that it waits. `answers` come then, or when nobody answered in time.
//! - From the first cell on the REPL is as hostile as the code in it. One that breaks a rule is killed.

use serde::{Deserialize, Serialize};

use crate::frame::OutputState;

/// The version of this file; host and driver are built together, and say so.
pub const REPL_VERSION: u32 = 3;

/// The longest source that goes in the frame: however it is escaped, there is room for it, and for all else.
pub const SOURCE_BYTES_SAID_MAX: usize = 8 * 1024;

/// From the host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRepl<'a> {
    /// Join the container, where that is still to be done, and begin. Carries, for a zygote's child, the container's user,
    /// mount, pid, network, ipc, uts and cgroup namespaces, and the entrances of its cgroups: files to write `0` to.
    Go {
        /// The whole environment.
        env: &'a [(String, String)],
    },
    /// Do representative work, so that its pages are the REPL's own; no name is left behind.
    Touch {},
    /// Run a cell. Carries: the writing ends of standard output and standard error, the source, read from its start,
    /// where it is not in the frame, and, where there are any, the tools that it may call.
    Cell {
        /// Number of the cell.
        id: u64,
        /// Proves that an answer is to this cell and not made up by an earlier one.
        nonce: &'a str,
        /// The name that tracebacks show.
        file: &'a str,
        /// Name of the new directory in `/files/output`.
        output: &'a str,
        /// At most [`SOURCE_BYTES_SAID_MAX`].
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<&'a str>,
    },
    /// Calls are answered. Carries: a line of JSON, `[[number, "text" | "error" | "timed_out", bytes], ...]`, with the
    /// texts behind it; and, where they are others than before, the tools.
    Answers {
        /// Number of the cell. It may have ended meanwhile.
        id: u64,
    },
}

/// From the REPL.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromRepl {
    /// It has joined and listens.
    Ready {
        /// [`REPL_VERSION`].
        version: u32,
        /// Its process id in the container, and its process group's.
        pid: u32,
    },
    /// It could not join the container, and ends.
    Failed {
        /// What it could not do.
        step: String,
        /// Why.
        errno: i32,
    },
    /// The work is done.
    Touched {},
    /// A cell calls tools, and has nothing else to do.
    Called {
        /// Number of the cell.
        id: u64,
        /// As in the cell.
        nonce: String,
        /// How many `answers` it has heard.
        heard: u64,
        /// A piece of a text: JSON, `[[function, argument], ...]`, the calls since the last one.
        calls: String,
        /// Which piece.
        part: CallsPart,
    },
    /// A cell ended. Carries the output directory exactly when `output` is `files`.
    Ended {
        /// Number of the cell.
        id: u64,
        /// As in the cell.
        nonce: String,
        /// How.
        status: CellStatus,
        /// What is in `$OUTPUT_DIR`.
        output: OutputState,
    },
}

/// Whether more of a text follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CallsPart {
    /// It does.
    More,
    /// It does not.
    Last,
}

/// How a cell ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CellStatus {
    /// With this exit code: that of `SystemExit`, 1 after any other exception, 130 after an interrupt.
    Code(u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_shape_the_driver_knows() {
        let env = [("K".to_owned(), "V".to_owned())];
        let cases = [
            (ToRepl::Go { env: &env }, r#"{"go":{"env":[["K","V"]]}}"#),
            (ToRepl::Touch {}, r#"{"touch":{}}"#),
            (
                ToRepl::Cell { id: 3, nonce: "ab", file: "/tmp/x/cell.py", output: "00ff", source: None },
                r#"{"cell":{"id":3,"nonce":"ab","file":"/tmp/x/cell.py","output":"00ff"}}"#,
            ),
            (
                ToRepl::Cell { id: 3, nonce: "ab", file: "/x.py", output: "00ff", source: Some("'é\0\n'") },
                r#"{"cell":{"id":3,"nonce":"ab","file":"/x.py","output":"00ff","source":"'é\u0000\n'"}}"#,
            ),
            (ToRepl::Answers { id: 3 }, r#"{"answers":{"id":3}}"#),
        ];
        for (frame, text) in cases {
            assert_eq!(serde_json::to_string(&frame).expect("JSON"), text);
        }
    }

    #[test]
    fn a_source_that_goes_in_the_frame_fits_however_it_is_escaped() {
        let (source, file) = ("\0".repeat(SOURCE_BYTES_SAID_MAX), "\u{1}".repeat(256));
        let nonce = "0123456789abcdef".repeat(2);
        let frame = ToRepl::Cell { id: u64::MAX, nonce: &nonce, file: &file, output: &nonce, source: Some(&source) };
        assert!(serde_json::to_vec(&frame).expect("JSON").len() <= crate::frame::FRAME_BYTES_MAX);
    }

    #[test]
    fn answers_have_one_shape_each() {
        let ended =
            FromRepl::Ended { id: 3, nonce: "ab".to_owned(), status: CellStatus::Code(2), output: OutputState::Files };
        let cases = [
            (r#"{"ready":{"version":1,"pid":2}}"#, Some(FromRepl::Ready { version: 1, pid: 2 })),
            (r#"{"failed":{"step":"x","errno":1}}"#, Some(FromRepl::Failed { step: "x".to_owned(), errno: 1 })),
            (r#"{"touched":{}}"#, Some(FromRepl::Touched {})),
            (r#"{"ended":{"id":3,"nonce":"ab","status":{"code":2},"output":"files"}}"#, Some(ended)),
            (r#"{"ended":{"id":3,"nonce":"ab","status":{"code":256},"output":"none"}}"#, None),
            (r#"{"ended":{"id":3,"nonce":"ab","status":{"signal":9},"output":"none"}}"#, None),
            (r#"{"ended":{"id":3,"nonce":"ab","status":{"code":0},"output":"some"}}"#, None),
            (r#"{"ended":{"id":3,"status":{"code":0},"output":"none"}}"#, None),
            (r#"{"ended":{"id":3,"nonce":"ab","status":{"code":0},"output":"none","more":1}}"#, None),
            (r#"{"ready":{"version":1,"pid":-2}}"#, None),
            (r#"{"touched":{}}{"touched":{}}"#, None),
            (r#""touched""#, None),
        ];
        for (text, frame) in cases {
            assert_eq!(serde_json::from_str(text).ok(), frame, "{text}");
        }
    }
}
