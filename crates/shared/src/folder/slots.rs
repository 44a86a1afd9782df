//! The state's bytes on disk, such that a process killed at any instant leaves the old ones or the new ones.
//!
//! One file has two slots, written in turn. A slot is the state and behind it, at the slot's end, a *trailer* with a
//! sequence number and checksums. One system call writes both. The kernel copies from front to back, and a kill can stop
//! it only between two pages; so the new number stands there last, or not at all. The slot with the higher number is
//! valid. If it is damaged all the same, that is an error, never a fall back to the other slot, which would forget a
//! grant.
//!
//! Nothing is flushed to the disk: what a killed process has written, the kernel has. When the machine stops, the
//! state is of an earlier boot, and so are all times in it (`mod.rs`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::FolderError;
use super::session::open_to_group;

/// The file with the slots, which is also the one that is locked.
pub(super) const STATE_FILE: &str = "state";

const MAGIC: u32 = u32::from_le_bytes(*b"srl1");
/// The version of the file's layout. That of the state is in its bytes.
const LAYOUT: u32 = 1;
const TRAILER_LEN: usize = 32;
/// The room of a slot. The file has holes where nothing was ever written.
const SLOT_LEN: u64 = 1 << 24;
const STATE_MAX: usize = SLOT_LEN as usize - TRAILER_LEN;
/// What is read of a slot at once, trailer included: more than most states take.
const READS: usize = 4_096;

#[derive(Debug)]
pub(super) struct Slots {
    path: PathBuf,
    pub(super) file: File,
}

/// A state that was read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) sequence: u64,
    checksum: u32,
}

/// What stands at the end of a slot that was written.
struct Trailer {
    sequence: u64,
    len: usize,
    checksum: u32,
}

impl Trailer {
    fn written(&self) -> Written {
        Written { sequence: self.sequence, checksum: self.checksum }
    }
}

impl Slots {
    pub(super) fn open(folder: &Path, mode: u32) -> Result<Self, FolderError> {
        let path = folder.join(STATE_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(mode);
        let file = options.open(&path).map_err(FolderError::io("open", &path))?;
        if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            open_to_group(&file, mode);
        }
        Ok(Self { path, file })
    }

    /// Opens the slots of a folder that is there, to read them alone.
    pub(super) fn open_to_read(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join(STATE_FILE);
        let file = File::open(&path).map_err(FolderError::io("open", &path))?;
        Ok(Self { path, file })
    }

    /// Whether this state, that was read or written before, is still the valid one.
    pub(super) fn is_present(&self, state: Written) -> Result<bool, FolderError> {
        let mut bytes = [0; TRAILER_LEN];
        self.read_end(state.sequence, &mut bytes)?;
        if self.trailer(&bytes)?.map(|own| own.written()) != Some(state) {
            return Ok(false);
        }
        self.read_end(state.sequence + 1, &mut bytes)?;
        let other = self.trailer(&bytes)?.map_or(0, |other| other.sequence);
        Ok(other + 1 == state.sequence)
    }

    /// Reads the valid state, and says which it is. `None` if nothing was ever written.
    pub(super) fn read(&self, state: &mut Vec<u8>) -> Result<Option<Written>, FolderError> {
        let mut ends = [[0; READS]; 2];
        self.read_end(0, &mut ends[0])?;
        self.read_end(1, &mut ends[1])?;
        let trailers = [self.trailer(&ends[0])?, self.trailer(&ends[1])?];
        let sequences = trailers.each_ref().map(|trailer| trailer.as_ref().map(|it| it.sequence));
        let newer = match sequences {
            [None, None] if self.len()? == 0 => return Ok(None),
            [None, None] => return Err(self.damaged("it is another file, or cut off")),
            [None, Some(1)] => 1,
            [Some(even), Some(odd)] if even.is_multiple_of(2) && even + 1 == odd => 1,
            [Some(even), Some(odd)] if even.is_multiple_of(2) && odd + 1 == even => 0,
            _ => return Err(self.damaged("the states' numbers do not follow each other")),
        };
        let [even, odd] = trailers;
        let Some(trailer) = (if newer == 0 { even } else { odd }) else { return Ok(None) };
        let written = trailer.written();
        let Trailer { sequence, len, checksum } = trailer;
        state.clear();
        match ends[newer].len().checked_sub(TRAILER_LEN + len) {
            Some(begin) => state.extend_from_slice(&ends[newer][begin..begin + len]),
            None => {
                state.resize(len, 0);
                let begin = end_of(sequence) - (TRAILER_LEN + len) as u64;
                self.file.read_exact_at(state, begin).map_err(self.io("read"))?;
            }
        }
        if crc32fast::hash(state) != checksum {
            return Err(self.damaged("a state's checksum"));
        }
        Ok(Some(written))
    }

    /// Writes the state with this number, which makes it the valid one. On an error the one before it stays so.
    /// `buffer` holds the state, and more room for the trailer.
    pub(super) fn write(
        &self,
        sequence: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<Written, FolderError> {
        let len = buffer.len();
        if len > STATE_MAX {
            let source = io::Error::from(io::ErrorKind::FileTooLarge);
            return Err(FolderError::Io { action: "write", path: self.path.clone(), source });
        }
        let checksum = crc32fast::hash(buffer);
        buffer.extend_from_slice(&MAGIC.to_le_bytes());
        buffer.extend_from_slice(&LAYOUT.to_le_bytes());
        buffer.extend_from_slice(&sequence.to_le_bytes());
        buffer.extend_from_slice(&(len as u64).to_le_bytes());
        buffer.extend_from_slice(&checksum.to_le_bytes());
        let trailer = crc32fast::hash(&buffer[len..]);
        buffer.extend_from_slice(&trailer.to_le_bytes());
        let begin = end_of(sequence) - buffer.len() as u64;
        let written = self.file.write_all_at(buffer, begin);
        buffer.truncate(len);
        written.map_err(self.io("write"))?;
        Ok(Written { sequence, checksum })
    }

    fn len(&self) -> Result<u64, FolderError> {
        let metadata = self.file.metadata().map_err(self.io("read"))?;
        Ok(metadata.len())
    }

    /// Reads the end of the slot in which this number belongs. What was never written reads as zeros.
    fn read_end(&self, sequence: u64, bytes: &mut [u8]) -> Result<(), FolderError> {
        let begin = end_of(sequence) - bytes.len() as u64;
        let mut read = 0;
        while read < bytes.len() {
            match self.file.read_at(&mut bytes[read..], begin + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io("read")(error)),
            }
        }
        Ok(())
    }

    /// The trailer at the end of these bytes; `None` if none was ever written there.
    fn trailer(&self, bytes: &[u8]) -> Result<Option<Trailer>, FolderError> {
        let Some(bytes) = bytes.last_chunk::<TRAILER_LEN>() else { return Ok(None) };
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let small =
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        let large =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        if small(0) != MAGIC || crc32fast::hash(&bytes[..28]) != small(28) {
            return Err(self.damaged("a trailer's checksum"));
        }
        if small(4) != LAYOUT {
            let path = self.path.parent().unwrap_or(&self.path).to_owned();
            return Err(FolderError::Newer { path, version: small(4) });
        }
        let len = usize::try_from(large(16)).ok().filter(|len| *len <= STATE_MAX);
        let len = len.ok_or_else(|| self.damaged("a state's length"))?;
        Ok(Some(Trailer { sequence: large(8), len, checksum: small(24) }))
    }

    fn io(&self, action: &'static str) -> impl FnOnce(io::Error) -> FolderError + use<> {
        FolderError::io(action, &self.path)
    }

    fn damaged(&self, what: &str) -> FolderError {
        let path = self.path.parent().unwrap_or(&self.path).to_owned();
        FolderError::Damaged { path, what: what.to_owned() }
    }
}

/// Where the slot of a number ends.
fn end_of(sequence: u64) -> u64 {
    SLOT_LEN * (sequence % 2 + 1)
}
