//! Where a limit that is called by a name has its folder.

use std::env;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::error::FolderError;

/// The folder that a text means. A text with a `/`, or that begins with `.` or `file:`, is a path. Any other is a name:
/// its folder is in the user's state folder (`$XDG_STATE_HOME/ratelimit`, by default `~/.local/state/ratelimit`), which
/// this makes.
///
/// ```
/// # use std::path::Path;
/// use strict_rate_limiter_shared::folder;
///
/// assert_eq!(folder::find("./api.limit")?, Path::new("./api.limit"));
/// assert_eq!(folder::find("file:/var/lib/api.limit")?, Path::new("/var/lib/api.limit"));
/// assert!(folder::find("a name").is_err());
/// # Ok::<(), folder::FolderError>(())
/// ```
pub fn find(text: &str) -> Result<PathBuf, FolderError> {
    if let Some(path) = text.strip_prefix("file:") {
        return Ok(PathBuf::from(path.strip_prefix("//").unwrap_or(path)));
    }
    if text.contains('/') || text.starts_with('.') {
        return Ok(PathBuf::from(text));
    }
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err(FolderError::Name { name: text.to_owned() });
    }
    let all = state_folder().ok_or(FolderError::NoStateFolder)?.join("ratelimit");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&all);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(FolderError::io("make the folder", &all)(error))
        }
        _ => Ok(all.join(format!("{text}.limit"))),
    }
}

fn state_folder() -> Option<PathBuf> {
    let is_set = |path: &PathBuf| path.is_absolute();
    let own = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(is_set);
    let home = || env::home_dir().filter(is_set).map(|home| home.join(Path::new(".local/state")));
    own.or_else(home)
}
