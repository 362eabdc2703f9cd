//! What can go wrong at start, in words that say what to do. Neighbours: `stack`, the services.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the stack does not start, or a call to a handle fails.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A port is in use.
    #[error("port {port} for {service} is taken: stop what listens there, or start the stack at another port")]
    PortTaken {
        /// Whose port.
        service: &'static str,
        /// Which.
        port: u16,
    },
    /// A port cannot be listened on.
    #[error("cannot listen on port {port} for {service}: {source}")]
    Listen {
        /// Whose port.
        service: &'static str,
        /// Which.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("{} is in use by another stack: stop it, or start this one in another directory", .dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be used.
    #[error("cannot use the directory {}: {source}", .dir.display())]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A database cannot be opened.
    #[error("cannot open {service}'s database {}: {reason}; remove the directory to start empty", .path.display())]
    Database {
        /// Whose.
        service: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A name that the service refuses.
    #[error("{name:?} is not a valid name of a {what}")]
    Name {
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A service refused a call.
    #[error("{service}: {reason}")]
    Service {
        /// Which.
        service: &'static str,
        /// Why.
        reason: String,
    },
}

/// What kind of failure it is, for those who decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StackErrorKind {
    /// A port is taken or cannot be used.
    Port,
    /// Another stack has the directory.
    Locked,
    /// The directory or a file in it cannot be used.
    Storage,
    /// A call was refused.
    Invalid,
}

impl StackError {
    /// Its kind.
    pub fn kind(&self) -> StackErrorKind {
        match self {
            Self::PortTaken { .. } | Self::Listen { .. } => StackErrorKind::Port,
            Self::Locked { .. } => StackErrorKind::Locked,
            Self::Dir { .. } | Self::Database { .. } => StackErrorKind::Storage,
            Self::Name { .. } | Self::Service { .. } => StackErrorKind::Invalid,
        }
    }

    pub(crate) fn dir(dir: Option<&Path>, source: io::Error) -> Self {
        Self::Dir { dir: dir.unwrap_or(Path::new("")).to_owned(), source }
    }

    pub(crate) fn database(service: &'static str, path: Option<&Path>, error: impl std::fmt::Display) -> Self {
        Self::Database { service, path: path.unwrap_or(Path::new(":memory:")).to_owned(), reason: error.to_string() }
    }
}
