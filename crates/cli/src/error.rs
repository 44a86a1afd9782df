//! The errors that end a run early, and their exit codes.

use std::io;
use std::path::PathBuf;

use strict_rate_limiter::store::StoreError;
use strict_rate_limiter_shared::FolderError;

/// Exit codes, as the help documents them.
pub(crate) mod exit {
    pub(crate) const FAILURES: u8 = 1;
    pub(crate) const OVERFLOW: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const IO: u8 = 3;
    pub(crate) const UNDECIDED: u8 = 4;
    pub(crate) const NOT_EXECUTABLE: u8 = 126;
    pub(crate) const NOT_FOUND: u8 = 127;
    pub(crate) const HUNG_UP: u8 = 129;
    pub(crate) const INTERRUPTED: u8 = 130;
    pub(crate) const QUIT: u8 = 131;
    pub(crate) const BROKEN_PIPE: u8 = 141;
    pub(crate) const TERMINATED: u8 = 143;
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Build(#[from] strict_rate_limiter::BuildError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the shared limit fails, so nothing more is started: {0}")]
    Store(StoreError),
    #[error("cannot read the answer: {0}")]
    Answer(io::Error),
    #[error("there is no command `{0}`")]
    NotFound(String),
    #[error("cannot run `{program}`: {why}")]
    NotExecutable { program: String, why: &'static str },
    #[error("cannot read {}: {error}", path.display())]
    Input { path: PathBuf, error: io::Error },
    #[error("cannot use the log {}: {error}", path.display())]
    Log { path: PathBuf, error: LogError },
    #[error("cannot read the log {}: {what}", path.display())]
    Audited { path: PathBuf, what: String },
    #[error("cannot write {}: {what}", path.display())]
    Drawn { path: PathBuf, what: String },
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    #[error(
        "cannot keep the commands' output until its turn in {}: {why} (TMPDIR names another folder; \
         -j1 without --tag keeps nothing)",
        folder.display()
    )]
    Spool { folder: PathBuf, why: String },
    #[error("cannot write messages to standard error: {0}")]
    Messages(io::Error),
    #[error("cannot write the manual to {}: {error}", folder.display())]
    Manual { folder: PathBuf, error: io::Error },
    #[error("cannot start: {0}")]
    Start(io::Error),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("another run is writing it")]
    InUse,
    #[error("it exists; go on with it (--resume), or remove it")]
    Exists,
    #[error("line {line}: {what}")]
    Malformed { line: u64, what: String },
}

impl Error {
    /// Whether the only problem is that the reader has gone (EPIPE). No message is printed for that.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) | Self::Messages(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            _ if self.is_broken_pipe() => exit::BROKEN_PIPE,
            Self::Usage(_)
            | Self::Build(_)
            | Self::Folder(
                FolderError::NoLimits { .. }
                | FolderError::Different { .. }
                | FolderError::Config(_)
                | FolderError::Name { .. },
            ) => exit::USAGE,
            Self::NotFound(_) => exit::NOT_FOUND,
            Self::NotExecutable { .. } => exit::NOT_EXECUTABLE,
            Self::Input { .. }
            | Self::Folder(_)
            | Self::Store(_)
            | Self::Answer(_)
            | Self::Log { .. }
            | Self::Audited { .. }
            | Self::Drawn { .. }
            | Self::Output(_)
            | Self::Messages(_)
            | Self::Spool { .. }
            | Self::Manual { .. }
            | Self::Start(_) => exit::IO,
        }
    }
}
