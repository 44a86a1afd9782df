//! The state's bytes on disk, such that a process killed at any instant leaves the old ones or the new ones.
//!
//! There are two slots, written in turn, and a header that names the valid one by its sequence number. A change
//! writes the slot that is not valid, then the header. So until the header is written the change has not been made, and
//! a slot whose header says that it is valid, and which is not, was damaged: that is an error, never a fall back to
//! the older slot, which would forget a grant.
//!
//! Nothing is flushed to the disk: what a killed process has written, the kernel has. When the machine stops, the
//! state is of an earlier boot, and so are all times in it (`mod.rs`).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::FolderError;

const MAGIC: [u8; 8] = *b"srlimit\n";
/// The version of the files' layout. That of the state is in its bytes.
const LAYOUT: u32 = 1;
const HEADER_LEN: usize = 24;
const SLOT_HEADER_LEN: usize = 20;
/// More than any state takes.
const STATE_MAX: usize = 1 << 28;

/// The file with the header is also the one that is locked.
pub(super) const HEADER_FILE: &str = "limit";
const SLOT_FILES: [&str; 2] = ["state.0", "state.1"];

#[derive(Debug)]
pub(super) struct Slots {
    folder: PathBuf,
    pub(super) header: File,
    files: [File; 2],
}

impl Slots {
    pub(super) fn open(folder: &Path, mode: u32) -> Result<Self, FolderError> {
        let open = |name: &str| {
            let path = folder.join(name);
            let options = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(mode)
                .open(&path);
            options.map_err(FolderError::io("open", &path))
        };
        let header = open(HEADER_FILE)?;
        let files = [open(SLOT_FILES[0])?, open(SLOT_FILES[1])?];
        Ok(Self { folder: folder.to_owned(), header, files })
    }

    /// The sequence number of the valid state; `None` if nothing was ever written.
    pub(super) fn sequence(&self) -> Result<Option<u64>, FolderError> {
        let mut bytes = [0; HEADER_LEN];
        let read = read_up_to(&self.header, &mut bytes).map_err(self.io("read", HEADER_FILE))?;
        if read == 0 {
            return Ok(None);
        }
        if read < HEADER_LEN || bytes[..8] != MAGIC {
            return Err(self.damaged("the header is cut off or of another file"));
        }
        let number =
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        if crc32fast::hash(&bytes[..20]) != number(20) {
            return Err(self.damaged("the header's checksum"));
        }
        if number(16) != LAYOUT {
            return Err(FolderError::Newer { path: self.folder.clone(), version: number(16) });
        }
        Ok(Some(u64::from_le_bytes(bytes[8..16].try_into().unwrap_or_default())))
    }

    /// Reads the state with this number, which the header says is valid.
    pub(super) fn read(&self, sequence: u64, state: &mut Vec<u8>) -> Result<(), FolderError> {
        let (slot, name) = self.slot(sequence);
        // Most states are read at once.
        state.resize(4_096.max(state.capacity()), 0);
        let mut read = read_up_to(slot, state).map_err(self.io("read", name))?;
        let Some((header, _)) = state[..read].split_first_chunk::<SLOT_HEADER_LEN>() else {
            return Err(self.damaged("a state is cut off"));
        };
        let number =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap_or_default());
        let checksum = u32::from_le_bytes(header[16..20].try_into().unwrap_or_default());
        let (own, len) = (number(0), number(8));
        let len = usize::try_from(len).ok().filter(|len| *len <= STATE_MAX);
        let Some(end) = len.map(|len| SLOT_HEADER_LEN + len).filter(|_| own == sequence) else {
            return Err(self.damaged("a state has another number or length"));
        };
        if end > read {
            state.resize(end, 0);
            read = read_up_to(slot, state).map_err(self.io("read", name))?;
        }
        if end > read || checksum_of(sequence, &state[SLOT_HEADER_LEN..end]) != checksum {
            return Err(self.damaged("a state's checksum"));
        }
        state.truncate(end);
        state.drain(..SLOT_HEADER_LEN);
        Ok(())
    }

    /// Writes the state with this number and makes it the valid one. On an error the one before it stays so.
    pub(super) fn write(
        &self,
        sequence: u64,
        state: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), FolderError> {
        let (slot, name) = self.slot(sequence);
        buffer.clear();
        buffer.extend_from_slice(&sequence.to_le_bytes());
        buffer.extend_from_slice(&(state.len() as u64).to_le_bytes());
        buffer.extend_from_slice(&checksum_of(sequence, state).to_le_bytes());
        buffer.extend_from_slice(state);
        slot.write_all_at(buffer, 0).map_err(self.io("write", name))?;
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&sequence.to_le_bytes());
        header[16..20].copy_from_slice(&LAYOUT.to_le_bytes());
        let checksum = crc32fast::hash(&header[..20]);
        header[20..].copy_from_slice(&checksum.to_le_bytes());
        self.header.write_all_at(&header, 0).map_err(self.io("write", HEADER_FILE))
    }

    fn slot(&self, sequence: u64) -> (&File, &'static str) {
        let index = usize::from(!sequence.is_multiple_of(2));
        (&self.files[index], SLOT_FILES[index])
    }

    fn io(
        &self,
        action: &'static str,
        name: &str,
    ) -> impl FnOnce(std::io::Error) -> FolderError + use<> {
        FolderError::io(action, &self.folder.join(name))
    }

    fn damaged(&self, what: &str) -> FolderError {
        FolderError::Damaged { path: self.folder.clone(), what: what.to_owned() }
    }
}

fn checksum_of(sequence: u64, state: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(&(state.len() as u64).to_le_bytes());
    hasher.update(state);
    hasher.finalize()
}

/// Fills the buffer as far as the file goes.
fn read_up_to(file: &File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
