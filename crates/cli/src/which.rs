//! Finds a program, and checks that it may be run.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Finds a program as a shell does: by its path, or in the folders of `PATH`.
pub(crate) fn find(program: &OsStr) -> Result<PathBuf, Error> {
    let name = || program.to_string_lossy().into_owned();
    let is_path = program.as_encoded_bytes().contains(&b'/');
    let candidates: Vec<PathBuf> = if is_path {
        vec![program.into()]
    } else {
        let folders = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        env::split_paths(&folders).map(|folder| folder.join(program)).collect()
    };
    let mut refused = None;
    for path in candidates {
        let Ok(file) = path.metadata() else { continue };
        if file.is_dir() {
            // Skip it: a folder in PATH, not a program.
            if is_path {
                refused.get_or_insert("it is a folder");
            }
        } else if file.permissions().mode() & 0o111 == 0 {
            refused.get_or_insert("permission denied: it is no executable (chmod +x makes it one)");
        } else {
            return Ok(path);
        }
    }
    Err(match refused {
        Some(why) => Error::NotExecutable { program: name(), why },
        None => Error::NotFound(name()),
    })
}

/// Whether shells would run a file without `#!` as a script: its first bytes are text.
pub(crate) fn is_script(path: &Path) -> bool {
    let mut begin = Vec::new();
    let read = File::open(path).and_then(|file| file.take(128).read_to_end(&mut begin));
    read.is_ok() && !begin.contains(&0)
}
