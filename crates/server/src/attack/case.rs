//! Cases as data: what runs in a container, or how a start is hindered, and exactly what must come of it.

use serde::Deserialize;

use crate::attack::mode::Mode;
use crate::cell::{Outcome, Reason};

/// One attack.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique, for people and `--only`.
    pub name: String,
    /// What it tries: names of the catalogue, `A.mknod`. The first decides the section.
    pub items: Vec<String>,
    /// Without these it says nothing.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// The only processor architecture it is about.
    pub architecture: Option<String>,
    /// Modes in which it takes long: `--skip-slow` leaves it out there.
    #[serde(default)]
    pub slow_in: Vec<Mode>,
    /// Run one after the other in one new container.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Instead of steps: a program of its own that must refuse to start.
    pub start: Option<Start>,
}

/// What a case cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Memory, processes and time are limited by the host's cgroups.
    Limits,
    /// The attack is run by the host's root.
    Root,
    /// The attack is run by an ordinary user.
    Ordinary,
    /// Isolation `namespaces`: it is about a part that `gvisor` has not.
    Namespaces,
    /// Isolation `gvisor`: it is about something that `namespaces` refuses before.
    Gvisor,
}

/// One thing done to a container.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What.
    pub run: Run,
    /// To whom.
    #[serde(default)]
    pub at: Whose,
    /// Wall time in seconds; [`crate::attack::range::CELL_WALL_S`] otherwise.
    pub wall_s_max: Option<u64>,
    /// What must come of it.
    #[serde(default)]
    pub expect: OneOf,
    /// The same in the mode `gvisor`, where another system call table answers.
    pub gvisor: Option<OneOf>,
}

/// Whose container a step is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// The case's own.
    #[default]
    Own,
    /// The one that keeps the secrets, which others' attacks must not reach.
    Neighbour,
}

/// What is done. `@CANARY@` and the other words of [`crate::attack::range::Range`] are filled in.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// A bash command.
    Bash(Lines),
    /// A Python program of its own, after `prelude.py`, which names the system calls.
    Python(Lines),
    /// A cell in Python, in the container's interpreter.
    Cell(Lines),
    /// As `bash`, with a tool `ask` that answers what the call says under `text`.
    BashWithTool(Lines),
    /// As `cell`, with the same.
    CellWithTool(Lines),
    /// As `cell_with_tool`, after `forge.py`, which finds the driver's way to the host.
    ForgingCell(Lines),
    /// The host puts a file into `$INPUT_DIR`.
    Put {
        /// Base name.
        name: String,
        /// Its content.
        content: String,
    },
    /// The host reads a file of the container: its content is the step's stdout, a refusal its stderr with return code 1.
    Read {
        /// As the container names it.
        path: String,
    },
}

/// A text, whole or as lines.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Lines {
    /// Whole.
    Whole(String),
    /// Lines, without their ends.
    Each(Vec<String>),
}

impl Lines {
    /// The lines, joined.
    pub fn joined(&self) -> String {
        match self {
            Self::Whole(text) => text.clone(),
            Self::Each(lines) => lines.join("\n"),
        }
    }
}

/// What must come of a step: this, or exactly one of several where the order of two processes decides.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOf {
    /// One of these.
    Any(Vec<Expect>),
    /// This.
    One(Box<Expect>),
}

impl Default for OneOf {
    fn default() -> Self {
        Self::One(Box::default())
    }
}

impl OneOf {
    /// Each of them.
    pub fn alternatives(&self) -> &[Expect] {
        match self {
            Self::Any(several) => several,
            Self::One(one) => std::slice::from_ref(one),
        }
    }
}

/// What must come of a step. What is left out is not looked at, but for the first three.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// How it ends; by itself unless told.
    pub outcome: Option<Outcome>,
    /// The limit that ended it or that it met; none unless told.
    pub reason: Option<Reason>,
    /// Exit status; unless told, 0 for what ends by itself and 137 for what was killed.
    pub return_code: Option<i32>,
    /// All of standard output.
    pub stdout: Option<Text>,
    /// All of standard error, the sandbox's own notices included.
    pub stderr: Option<Text>,
    /// Names of the captured files, sorted.
    pub files: Option<Vec<String>>,
    /// Bytes kept of standard output.
    pub stdout_bytes_kept: Option<u64>,
    /// It took at most this many milliseconds.
    pub wall_ms_max: Option<u64>,
}

/// What a text must be.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Exactly this.
    Exact(String),
    /// Exactly these lines.
    Lines(Vec<String>),
    /// All of it matches a regular expression, in which `.` is also a line end.
    Pattern {
        /// The expression.
        pattern: String,
    },
}

/// A start of containers by a program of its own, `belljar exec`, on a machine that lacks something. Nothing may run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// System calls that fail.
    #[serde(default)]
    pub refuse: Vec<Refuse>,
    /// Open files it may have.
    pub open_files_max: Option<u64>,
    /// Members of `[sandbox]` that differ, as TOML values.
    #[serde(default)]
    pub config: std::collections::BTreeMap<String, String>,
    /// Lines put before the rest of the configuration file.
    #[serde(default)]
    pub config_head: String,
    /// A shell command run first, by root, in a mount namespace of its own.
    pub before: Option<String>,
    /// What must come of it.
    pub expect: StartExpect,
    /// The same in the mode `gvisor`, whose set-up has other steps.
    pub gvisor: Option<StartExpect>,
}

/// One system call that the kernel refuses (`seccomp(2)`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Refuse {
    /// Its name.
    pub call: String,
    /// Only when this argument...
    pub argument: Option<u8>,
    /// ...is this value, or has these bits.
    pub value: Option<u64>,
    /// How the value is compared.
    #[serde(default)]
    pub test: Test,
    /// The answer, as in `errno(3)`.
    pub errno: String,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// The whole argument.
    #[default]
    Is,
    /// At least these bits.
    HasBits,
}

/// How a hindered start ends.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartExpect {
    /// The exit status.
    pub exit: i32,
    /// All of standard output: empty, unless the code did run.
    #[serde(default)]
    pub stdout: String,
    /// What standard error must be.
    pub stderr: Text,
}

impl Case {
    /// `A` to `J`: the section of the first item.
    pub fn section(&self) -> &str {
        self.items.first().and_then(|item| item.split('.').next()).unwrap_or("?")
    }
}

impl Start {
    /// What must come of it in a mode.
    pub fn expected(&self, mode: Mode) -> &StartExpect {
        match mode {
            Mode::Namespaces => &self.expect,
            Mode::Gvisor => self.gvisor.as_ref().unwrap_or(&self.expect),
        }
    }
}

impl Step {
    /// What must come of it in a mode.
    pub fn expected(&self, mode: Mode) -> &OneOf {
        match mode {
            Mode::Namespaces => &self.expect,
            Mode::Gvisor => self.gvisor.as_ref().unwrap_or(&self.expect),
        }
    }
}
