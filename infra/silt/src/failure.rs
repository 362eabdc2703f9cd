//! How a command ends: well, with problems found, or with a failure that has an exit code.
//!
//! Neighbours: every command. Exit codes: 0 ok, 1 problems found, 2 wrong usage, 3 a service is unavailable.

use std::{io, io::Write, process::ExitCode};

use serde_json::json;
use siltstone_local::{StackError, StackErrorKind};
use siltstone_store::stream::{StreamError, StreamErrorKind};
use siltstone_table::{ErrorKind, TableError};

/// A command that came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Well,
    /// It looked, and found what should not be: exit code 1.
    Problems,
}

/// A command that did not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Problem(String),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Unavailable(String),
    /// Whoever read the output has enough.
    #[error("the output was closed")]
    OutputClosed,
}

impl Failure {
    /// The same failure, with what was done before it.
    pub(crate) fn after(self, done: &str) -> Self {
        match self {
            Self::Problem(text) => Self::Problem(format!("{text}; {done}")),
            Self::Usage(text) => Self::Usage(format!("{text}; {done}")),
            Self::Unavailable(text) => Self::Unavailable(format!("{text}; {done}")),
            Self::OutputClosed => Self::OutputClosed,
        }
    }

    /// Tells it on standard error, and gives the exit code.
    pub(crate) fn report(&self, as_json: bool) -> ExitCode {
        let code = match self {
            Self::OutputClosed => return ExitCode::SUCCESS,
            Self::Problem(_) => 1,
            Self::Usage(_) => 2,
            Self::Unavailable(_) => 3,
        };
        let text = if as_json { json!({"error": self.to_string()}).to_string() } else { format!("error: {self}") };
        drop(writeln!(io::stderr(), "{text}"));
        ExitCode::from(code)
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        match error.kind() {
            ErrorKind::Unavailable => Self::Unavailable(error.to_string()),
            ErrorKind::Invalid => Self::Usage(error.to_string()),
            _ => Self::Problem(error.to_string()),
        }
    }
}

impl From<StackError> for Failure {
    fn from(error: StackError) -> Self {
        match error.kind() {
            StackErrorKind::Invalid => Self::Usage(error.to_string()),
            StackErrorKind::Storage => Self::Problem(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        match error.kind() {
            StreamErrorKind::NotFound => Self::Problem(error.to_string()),
            StreamErrorKind::Invalid => Self::Usage(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Problem(format!("the output cannot be written: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_has_the_exit_code_of_an_unavailable_service() {
        let codes = [
            (TableError::Unavailable("x".to_owned()), 3),
            (TableError::Invalid("x".to_owned()), 2),
            (TableError::NotFound("x".to_owned()), 1),
            (TableError::Corrupt("x".to_owned()), 1),
            (TableError::Conflict("x".to_owned()), 1),
        ];
        for (error, code) in codes {
            let words = error.to_string();
            assert_eq!(Failure::from(error).report(false), ExitCode::from(code), "{words}");
        }
    }
}
