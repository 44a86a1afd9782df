//! Sessions as files. Each process keeps a file of its own locked: the kernel drops the lock when the process has
//! ended, however it ended, and keeps it while the process is merely stopped. So the dead and the slow are told apart
//! without a timeout.
//!
//! Children inherit the lock by `fork`, and by `exec` if that was asked for: then a session lives until the last of
//! them has ended.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::io::{FdFlags, fcntl_setfd};

use super::error::FolderError;

/// The folder of the sessions' files, inside the limit's folder.
pub(super) const SESSIONS: &str = "sessions";

pub(super) const SOCKET: &str = "socket";

/// The files of the sessions.
#[derive(Debug)]
pub(super) struct SessionFiles {
    folder: PathBuf,
    mode: u32,
}

impl SessionFiles {
    pub(super) fn open(limit_folder: &Path, mode: u32) -> Result<Self, FolderError> {
        let folder = limit_folder.join(SESSIONS);
        // Who may write a file here may also enter the folder.
        let folder_mode = mode | (mode & 0o440) >> 2;
        match DirBuilder::new().mode(folder_mode).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(FolderError::io("make the folder", &folder))?,
        }
        Ok(Self { folder, mode })
    }

    /// The files of a folder that is there.
    pub(super) fn of(limit_folder: &Path) -> Self {
        Self { folder: limit_folder.join(SESSIONS), mode: 0 }
    }

    pub(super) fn file(&self, session: u64) -> PathBuf {
        self.folder.join(session.to_string())
    }

    pub(super) fn socket(&self, session: u64) -> PathBuf {
        self.folder.join(format!("{session}.{SOCKET}"))
    }

    /// Makes this session's file and locks it. The lock lasts as long as the returned file is open, here or in a
    /// child.
    pub(super) fn begin(
        &self,
        session: u64,
        label: &str,
        children_inherit: bool,
    ) -> Result<File, FolderError> {
        let path = self.file(session);
        let begin = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true).mode(self.mode);
            let mut file = options.open(&path)?;
            file.try_lock().map_err(io::Error::from)?;
            file.write_all(label.as_bytes())?;
            if children_inherit {
                fcntl_setfd(&file, FdFlags::empty())?;
            }
            Ok(file)
        };
        begin().map_err(FolderError::io("make", &path))
    }

    /// Whether the session's process, or a child that has inherited its lock, may live. A session whose file is gone
    /// may: only a session that has ended has its file removed by us.
    pub(super) fn may_live(&self, session: u64) -> bool {
        let Ok(file) = File::open(self.file(session)) else { return true };
        match file.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => true,
        }
    }

    /// The sessions that have files.
    pub(super) fn all(&self) -> Result<Vec<u64>, FolderError> {
        let entries = fs::read_dir(&self.folder).map_err(FolderError::io("read", &self.folder))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    /// What the session's process has said about itself.
    pub(super) fn label(&self, session: u64) -> Option<String> {
        fs::read_to_string(self.file(session)).ok()
    }

    /// Removes the files of a session that has ended.
    pub(super) fn remove(&self, session: u64) {
        // Left behind, they take a little room, and the next process removes them.
        let _ = fs::remove_file(self.socket(session));
        let _ = fs::remove_file(self.file(session));
    }
}
