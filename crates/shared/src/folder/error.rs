//! The errors of a folder. Whatever goes wrong, nothing is granted.

use std::io;
use std::path::{Path, PathBuf};

use strict_rate_limiter_core::{ConfigError, StateError};

/// Why a folder cannot be used, now or at all. Nothing was granted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The system refused something: no such parent folder, no permission, a full or a read-only disk.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was refused, such as `open`.
        action: &'static str,
        /// The file or the folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The folder is on a file system that other machines may use as well, or whose locks cannot be relied on.
    #[error(
        "{} is on {kind}, where locks do not bind all who use it; use a folder on a local disk",
        path.display()
    )]
    NotLocal {
        /// The folder.
        path: PathBuf,
        /// The file system's name.
        kind: &'static str,
    },
    /// The folder belongs to another user.
    #[error("{} belongs to another user (id {owner})", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// The number of the user that it belongs to.
        owner: u32,
    },
    /// Every user may write in the folder.
    #[error("every user may write in {}; `chmod o-w` it, and use a folder of your own", path.display())]
    OpenToAll {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has no limits yet, and none were given.
    #[error("{} has no limits yet: give at least one, such as 10/1s", path.display())]
    NoLimits {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has other settings than those that were asked for.
    #[error("{} has {stored}, and {asked} was asked for", path.display())]
    Different {
        /// The folder.
        path: PathBuf,
        /// What it has.
        stored: String,
        /// What was asked for.
        asked: String,
    },
    /// The settings contradict each other, or are out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder was written by a newer version of this software.
    #[error("{} was written by a newer version ({version})", path.display())]
    Newer {
        /// The folder.
        path: PathBuf,
        /// The version that its files have.
        version: u32,
    },
    /// The files in the folder are damaged.
    #[error(
        "the state in {} is damaged ({what}); remove the folder, and its limits count as used up",
        path.display()
    )]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The folder was removed, or replaced by another, while it was in use.
    #[error("{} was removed or replaced while it was in use; open it again", path.display())]
    Replaced {
        /// The folder.
        path: PathBuf,
    },
    /// The process is a fork of the one that opened the folder.
    #[error("{} was opened before this process was forked; open it again here", path.display())]
    Forked {
        /// The folder.
        path: PathBuf,
    },
    /// The name has letters that a name cannot have.
    #[error(
        "{name:?} is no name for a shared limit: use letters, digits, `-`, `_` and `.`, or a path with a `/`"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// There is no folder for the user's state.
    #[error("there is no home folder for a limit with a name; use a path, such as ./api.limit")]
    NoStateFolder,
    /// The system does not say which start of the machine this is.
    #[error("the system does not say since when it runs (no boot id), so times cannot be compared")]
    NoBootId,
}

impl FolderError {
    /// For `map_err`: the system refused `action` on `path`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(super) fn state(path: &Path, error: &StateError) -> Self {
        match error {
            StateError::Version(version) => {
                Self::Newer { path: path.to_owned(), version: *version }
            }
            error => Self::Damaged { path: path.to_owned(), what: error.to_string() },
        }
    }
}
