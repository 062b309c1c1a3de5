//! What every contestant is asked to do: the same source for all.

use crate::cell::Language;

/// A piece of work with a known answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Python with the three libraries that analyses begin with.
    Libraries,
    /// Python that prints a number.
    Number,
    /// The shell's `echo hi`.
    Echo,
    /// `/bin/echo hi`, without a shell.
    EchoAlone,
}

impl Task {
    /// All of them.
    pub const ALL: [Task; 4] = [Task::Libraries, Task::Number, Task::Echo, Task::EchoAlone];

    /// Its name in files and series.
    pub fn name(self) -> &'static str {
        match self {
            Self::Libraries => "libraries",
            Self::Number => "number",
            Self::Echo => "echo",
            Self::EchoAlone => "echo-alone",
        }
    }

    /// What it is written in.
    pub fn language(self) -> Language {
        match self {
            Self::Libraries | Self::Number => Language::Python,
            Self::Echo | Self::EchoAlone => Language::Bash,
        }
    }

    /// The code.
    pub fn source(self) -> &'static str {
        match self {
            Self::Libraries => "import numpy, pandas, matplotlib.pyplot\nprint(2 + 2)\n",
            Self::Number => "print(2 + 2)\n",
            Self::Echo => "echo hi",
            Self::EchoAlone => "/bin/echo hi",
        }
    }

    /// The command line that runs the code from nothing.
    pub fn argv(self) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Libraries | Self::Number => &["python3", "-c", self.source()],
            Self::Echo => &["bash", "-c", self.source()],
            Self::EchoAlone => &["/bin/echo", "hi"],
        };
        words.iter().map(|&word| word.to_owned()).collect()
    }

    /// All of its standard output.
    pub fn expected(self) -> &'static [u8] {
        match self {
            Self::Libraries | Self::Number => b"4\n",
            Self::Echo | Self::EchoAlone => b"hi\n",
        }
    }
}
