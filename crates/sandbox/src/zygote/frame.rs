//! The frames between host and zygote. `guest/python/zygote.py` speaks them too.
//!
//! Rules on top of the shapes:
//! - One frame is one packet of the zygote's socket: one JSON document with exactly the descriptors its shape names.
//! - The zygote speaks first: [`FromZygote::Ready`]. After that each [`ToZygote::Fork`] gets one answer with its `id`, in
//!   any order, and each process forked one [`FromZygote::Ended`].
//! - A zygote runs no user code. One that breaks a rule is broken, and is replaced.

use serde::{Deserialize, Serialize};

use crate::frame::Status;

/// The version of this file; host and zygote are built together, and say so.
pub const ZYGOTE_VERSION: u32 = 3;

/// From the host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToZygote {
    /// Fork a REPL into a container. Carries: the container's pid namespace, and the REPL's end of its socket. The child
    /// does nothing before the host's `go` on that socket.
    Fork {
        /// Number of this request.
        id: u64,
    },
}

/// From the zygote.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromZygote {
    /// Everything is imported, and it listens.
    Ready {
        /// [`ZYGOTE_VERSION`].
        version: u32,
        /// Of the interpreter.
        python: String,
        /// What it could not do so that its children copy little (`guest/python/share.py`).
        missing: Vec<String>,
    },
    /// It has a child. Carries the child's pidfd.
    Forked {
        /// Number of the request.
        id: u64,
        /// As the host numbers it.
        pid: i32,
    },
    /// It has none.
    Refused {
        /// Number of the request.
        id: u64,
        /// Why.
        errno: i32,
    },
    /// A child has been reaped.
    Ended {
        /// As in [`FromZygote::Forked`].
        pid: i32,
        /// How it ended.
        status: Status,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_shape_the_zygote_knows() {
        assert_eq!(serde_json::to_string(&ToZygote::Fork { id: 7 }).expect("JSON"), r#"{"fork":{"id":7}}"#);
        let cases = [
            (
                r#"{"ready":{"version":3,"python":"3.13.5","missing":["x"]}}"#,
                Some(FromZygote::Ready { version: 3, python: "3.13.5".to_owned(), missing: vec!["x".to_owned()] }),
            ),
            (r#"{"ready":{"version":3,"python":"3.13.5"}}"#, None),
            (r#"{"forked":{"id":7,"pid":9}}"#, Some(FromZygote::Forked { id: 7, pid: 9 })),
            (r#"{"refused":{"id":7,"errno":11}}"#, Some(FromZygote::Refused { id: 7, errno: 11 })),
            (
                r#"{"ended":{"pid":9,"status":{"signal":9}}}"#,
                Some(FromZygote::Ended { pid: 9, status: Status::Signal(9) }),
            ),
            (r#"{"ended":{"pid":9,"status":{"code":256}}}"#, None),
            (r#"{"forked":{"id":7,"pid":9,"more":1}}"#, None),
        ];
        for (text, frame) in cases {
            assert_eq!(serde_json::from_str(text).ok(), frame, "{text}");
        }
    }
}
