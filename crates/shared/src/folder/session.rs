//! Sessions as files. Each process keeps a file of its own locked: the kernel drops the lock when the process has
//! ended, however it ended, and keeps it while the process is merely stopped. So the dead and the slow are told apart
//! without a timeout.
//!
//! Children inherit the lock by `fork`, and by `exec` if that was asked for: then a session lives until the last of
//! them has ended. Its process then has a second file, whose lock they do not inherit: if that alone is unlocked, what
//! the session holds is held, but nobody is left who waits.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::{FdFlags, fcntl_setfd};

use super::error::FolderError;

/// The folder of the sessions' files, inside the limit's folder.
pub(super) const SESSIONS: &str = "sessions";

pub(super) const SOCKET: &str = "socket";

/// The end of the name of a process's own file, beside that of its session.
const PROCESS: &str = "process";

/// The locks that last as long as this process, and as the children that inherit the session's.
#[derive(Debug)]
pub(super) struct SignsOfLife {
    _session: File,
    _process: Option<File>,
}

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
            made => {
                made.map_err(FolderError::io("make the folder", &folder))?;
                if let Ok(made) = File::open(&folder) {
                    open_to_group(&made, folder_mode);
                }
            }
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

    fn process_file(&self, session: u64) -> PathBuf {
        self.folder.join(format!("{session}.{PROCESS}"))
    }

    /// Makes this session's file and locks it. The lock lasts as long as the file is open, here or in a child. `None` if
    /// another process has a file of that number.
    pub(super) fn begin(
        &self,
        session: u64,
        label: &str,
        children_inherit: bool,
    ) -> Result<Option<SignsOfLife>, FolderError> {
        let path = self.file(session);
        let locked = |path: &Path| -> io::Result<File> {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(self.mode);
            let file = options.open(path)?;
            file.try_lock().map_err(io::Error::from)?;
            file.set_len(0)?;
            open_to_group(&file, self.mode);
            Ok(file)
        };
        let begin = || -> io::Result<SignsOfLife> {
            let mut file = locked(&path)?;
            file.write_all(label.as_bytes())?;
            let mut process = None;
            if children_inherit {
                process = Some(locked(&self.process_file(session))?);
                fcntl_setfd(&file, FdFlags::empty())?;
            }
            Ok(SignsOfLife { _session: file, _process: process })
        };
        match begin() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            begun => begun.map(Some).map_err(FolderError::io("make", &path)),
        }
    }

    /// Whether the session's process, or a child that has inherited its lock, may live. A session whose file is gone
    /// may: only a session that has ended has its file removed by us.
    pub(super) fn may_live(&self, session: u64) -> bool {
        may_be_locked(&self.file(session))
    }

    /// Whether the session's process itself may live. Without a file of its own, it may as long as the session may.
    pub(super) fn process_may_live(&self, session: u64) -> bool {
        self.may_live(session) && may_be_locked(&self.process_file(session))
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
        let _ = fs::remove_file(self.process_file(session));
        let _ = fs::remove_file(self.file(session));
    }
}

/// Opens what this process has made to the folder's group, whatever the process's umask is.
pub(super) fn open_to_group(made: &File, mode: u32) {
    if mode & 0o020 != 0 {
        // Whoever may not is told when he opens it.
        let _ = made.set_permissions(Permissions::from_mode(mode));
    }
}

/// Whether somebody has the file locked, as far as can be told.
fn may_be_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return true };
    match file.try_lock_shared() {
        Ok(()) => false,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => true,
    }
}
