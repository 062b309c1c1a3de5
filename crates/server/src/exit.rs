//! How a command ends: the exit status, and what is said. 0 done; 1 failed; 2 usage; 3 this machine cannot.

use crate::config::ConfigError;

/// The thing asked for failed.
pub const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub const USAGE: u8 = 2;
/// This machine cannot.
pub const CANNOT: u8 = 3;

/// A command that failed: what to say, and the exit status.
#[derive(Debug)]
pub struct Exit {
    code: u8,
    message: String,
}

impl Exit {
    /// The exit status.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// What to say.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The thing asked for failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }

    /// The command line or the configuration is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    /// This machine cannot.
    pub fn cannot(message: impl Into<String>) -> Self {
        Self { code: CANNOT, message: message.into() }
    }
}

impl From<ConfigError> for Exit {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}
