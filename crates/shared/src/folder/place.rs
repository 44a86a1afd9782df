//! Which folders may hold a limit: our own, on a local file system, closed to other users.

use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::process::{getegid, geteuid, getgroups};

use super::error::FolderError;

/// Makes the folder if it is not there, closed to all other users. Its parent must be there.
pub(super) fn make(path: &Path) -> Result<(), FolderError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(FolderError::io("make the folder", path)),
    }
}

/// Refuses a folder that is not ours, that everybody may write in, or that is not local.
pub(super) fn check(path: &Path) -> Result<Metadata, FolderError> {
    let folder = File::open(path).map_err(FolderError::io("open", path))?;
    let metadata = folder.metadata().map_err(FolderError::io("open", path))?;
    if !metadata.is_dir() {
        let source = io::Error::from(io::ErrorKind::NotADirectory);
        return Err(FolderError::Io { action: "use", path: path.to_owned(), source });
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(FolderError::OpenToAll { path: path.to_owned() });
    }
    let is_own = metadata.uid() == geteuid().as_raw();
    let is_shared_with_us = metadata.mode() & 0o020 != 0 && is_in_group(metadata.gid());
    if !is_own && !is_shared_with_us {
        return Err(FolderError::NotOurs { path: path.to_owned(), owner: metadata.uid() });
    }
    match not_local(&folder).map_err(FolderError::io("open", path))? {
        Some(kind) => Err(FolderError::NotLocal { path: path.to_owned(), kind }),
        None => Ok(metadata),
    }
}

/// The permissions of files in the folder: those who may write in it may use the limit.
pub(super) fn file_mode(folder: &Metadata) -> u32 {
    if folder.mode() & 0o020 == 0 { 0o600 } else { 0o660 }
}

fn is_in_group(group: u32) -> bool {
    let others = getgroups().unwrap_or_default();
    getegid().as_raw() == group || others.iter().any(|other| other.as_raw() == group)
}

/// File systems that other machines may use at the same time, or that leave locks to a program. By the kernel's magic
/// numbers.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NOT_LOCAL: [(i64, &str); 14] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFE53_4D42, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0x0102_1997, "9P"),
    (0x6573_5546, "FUSE"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
];

#[cfg(any(target_os = "linux", target_os = "android"))]
fn not_local(folder: &File) -> io::Result<Option<&'static str>> {
    // Some systems have it as a signed number of 32 bits.
    let kind = rustix::fs::fstatfs(folder)?.f_type & 0xFFFF_FFFF;
    Ok(NOT_LOCAL.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn not_local(folder: &File) -> io::Result<Option<&'static str>> {
    /// `MNT_LOCAL`: the file system is on this machine.
    const LOCAL: u32 = 0x1000;
    let is_local = rustix::fs::fstatfs(folder)?.f_flags & LOCAL != 0;
    Ok((!is_local).then_some("a network file system"))
}
