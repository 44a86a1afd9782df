//! Stores captured output until its turn: at most [`MEMORY_MAX`] bytes in memory, the rest in one file for all
//! outputs. So a waiting output needs no descriptor of its own.
//!
//! The file has no name and disappears with the run. Freed space in it is reused, and free space at its end is cut
//! off.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use crate::error::Error;

/// The most bytes in memory, of all commands together.
pub(crate) const MEMORY_MAX: usize = 4 << 20;

/// The file is cut off when this many bytes at its end are free.
const CUT_FROM: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    memory_max: usize,
    /// Bytes allocated in memory.
    in_memory: usize,
    /// The free ranges of the file before `end`: lengths by offset, no two adjacent.
    unused: BTreeMap<u64, u64>,
    end: u64,
    file_length: u64,
    /// The first error. After it nothing more is stored, so that no output has a gap.
    failed: Option<String>,
}

/// A stored output, in the order in which it was written.
#[derive(Debug, Default)]
pub(crate) struct Spooled {
    chunks: Vec<Chunk>,
    /// Whether a part of it could not be stored.
    is_lost: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Chunk {
    Memory(Vec<u8>),
    File { offset: u64, length: u64 },
}

impl Spool {
    /// Creates the file, so that an unusable TMPDIR is an error before anything runs.
    pub(crate) fn open() -> Result<Self, Error> {
        let file = tempfile::tempfile().map_err(|error| unusable(reason(&error)))?;
        Ok(Self {
            file,
            memory_max: MEMORY_MAX,
            in_memory: 0,
            unused: BTreeMap::new(),
            end: 0,
            file_length: 0,
            failed: None,
        })
    }

    /// The error, if some output could not be stored.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.failed.clone().map(unusable)
    }

    /// Appends to an output. On an error the rest of it is lost, and [`Self::failure`] says why.
    pub(crate) fn keep(&mut self, kept: &mut Spooled, bytes: &[u8]) {
        if self.failed.is_some() {
            kept.is_lost = true;
        }
        if kept.is_lost || bytes.is_empty() {
            return;
        }
        if self.in_memory + bytes.len() <= self.memory_max {
            if !matches!(kept.chunks.last(), Some(Chunk::Memory(_))) {
                kept.chunks.push(Chunk::Memory(vec![]));
            }
            let Some(Chunk::Memory(memory)) = kept.chunks.last_mut() else { unreachable!() };
            let before = memory.capacity();
            memory.reserve_exact(bytes.len());
            memory.extend_from_slice(bytes);
            self.in_memory += memory.capacity() - before;
        } else if let Err(error) = self.keep_in_file(kept, bytes) {
            self.failed = Some(reason(&error));
            kept.is_lost = true;
        }
    }

    fn keep_in_file(&mut self, kept: &mut Spooled, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (offset, length) = self.allocate(bytes.len() as u64);
            let (now, later) = bytes.split_at(length as usize);
            self.file.write_all_at(now, offset)?;
            self.file_length = self.file_length.max(offset + length);
            match kept.chunks.last_mut() {
                Some(Chunk::File { offset: last, length: before }) if *last + *before == offset => {
                    *before += length;
                }
                _ => kept.chunks.push(Chunk::File { offset, length }),
            }
            bytes = later;
        }
        Ok(())
    }

    /// Allocates a range of the file, at most as long as wanted: a free range, else at the end.
    fn allocate(&mut self, wanted: u64) -> (u64, u64) {
        let Some((offset, length)) = self.unused.pop_first() else {
            self.end += wanted;
            return (self.end - wanted, wanted);
        };
        let taken = length.min(wanted);
        if taken < length {
            self.unused.insert(offset + taken, length - taken);
        }
        (offset, taken)
    }

    /// Reads an output from its beginning.
    pub(crate) fn reader<'a>(&'a self, kept: &'a Spooled) -> impl Read + 'a {
        SpoolReader { file: &self.file, chunks: kept.chunks.iter(), now: Remainder::default() }
    }

    /// Frees the space of an output.
    pub(crate) fn forget(&mut self, kept: Spooled) {
        for piece in kept.chunks {
            match piece {
                Chunk::Memory(memory) => self.in_memory -= memory.capacity(),
                Chunk::File { offset, length } => self.give_back(offset, length),
            }
        }
    }

    fn give_back(&mut self, mut offset: u64, mut length: u64) {
        if let Some((before, its_length)) = self.unused.range(..offset).next_back()
            && before + its_length == offset
        {
            (offset, length) = (*before, its_length + length);
            self.unused.remove(&offset);
        }
        if let Some(its_length) = self.unused.remove(&(offset + length)) {
            length += its_length;
        }
        if offset + length < self.end {
            self.unused.insert(offset, length);
            return;
        }
        self.end = offset;
        if self.file_length - self.end >= CUT_FROM || self.end == 0 {
            // If the file cannot be cut, its space is reused instead.
            if self.file.set_len(self.end).is_ok() {
                self.file_length = self.end;
            }
        }
    }
}

impl Spooled {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(crate) fn is_whole(&self) -> bool {
        !self.is_lost
    }
}

/// The unread remainder of a chunk.
#[derive(Default)]
enum Remainder<'a> {
    Memory(&'a [u8]),
    File(u64, u64),
    #[default]
    Nothing,
}

struct SpoolReader<'a, I> {
    file: &'a File,
    chunks: I,
    now: Remainder<'a>,
}

impl<'a, I: Iterator<Item = &'a Chunk>> Read for SpoolReader<'a, I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.now {
                Remainder::Memory(bytes) if !bytes.is_empty() => return bytes.read(buffer),
                Remainder::File(offset, length) if *length > 0 => {
                    let wanted = buffer.len().min(usize::try_from(*length).unwrap_or(usize::MAX));
                    let read = self.file.read_at(&mut buffer[..wanted], *offset)?;
                    if read == 0 && wanted > 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    *offset += read as u64;
                    *length -= read as u64;
                    return Ok(read);
                }
                _ => match self.chunks.next() {
                    Some(Chunk::Memory(bytes)) => self.now = Remainder::Memory(bytes),
                    Some(Chunk::File { offset, length }) => {
                        self.now = Remainder::File(*offset, *length);
                    }
                    None => return Ok(0),
                },
            }
        }
    }
}

fn unusable(why: String) -> Error {
    Error::Spool { folder: env::temp_dir(), why }
}

/// The system's error message. (tempfile's own message names a file that was never created.)
fn reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(std::error::Error::source);
    inner.map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(memory_max: usize) -> Spool {
        Spool { memory_max, ..Spool::open().unwrap() }
    }

    fn read(spool: &Spool, kept: &Spooled) -> Vec<u8> {
        let mut bytes = vec![];
        spool.reader(kept).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_kept_is_read_back_whole_and_in_order() {
        let mut spool = spool(10);
        let (mut one, mut two) = (Spooled::default(), Spooled::default());
        spool.keep(&mut one, b"memory");
        spool.keep(&mut two, b"file");
        spool.keep(&mut one, b"beside");
        spool.keep(&mut two, b"more");
        spool.keep(&mut two, b"!");
        assert_eq!(
            (read(&spool, &one), read(&spool, &two)),
            (b"memorybeside".into(), b"filemore!".into())
        );
        assert!(spool.in_memory <= 10);
        assert!(spool.end > 0);
    }

    #[test]
    fn what_was_let_out_is_written_over_and_the_file_never_grows_beyond_what_waits() {
        let mut spool = spool(0);
        let mut waiting = std::collections::VecDeque::new();
        for round in 0..2_000_u64 {
            let mut kept = Spooled::default();
            let bytes = vec![round as u8; 1 + (round * 7_919 % 5_000) as usize];
            bytes.chunks(997).for_each(|chunk| spool.keep(&mut kept, chunk));
            waiting.push_back((kept, bytes));
            if waiting.len() > 10 {
                // Free any of them, not always the oldest.
                let (kept, bytes) = waiting.remove((round % 3) as usize).unwrap();
                assert_eq!(read(&spool, &kept), bytes);
                spool.forget(kept);
            }
            assert!(spool.end <= 12 * 5_000, "{}", spool.end);
        }
        for (kept, bytes) in waiting {
            assert_eq!(read(&spool, &kept), bytes);
            spool.forget(kept);
        }
        assert_eq!(
            (spool.end, spool.unused.len(), spool.file.metadata().unwrap().len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn memory_is_had_again_by_what_comes_later() {
        let mut spool = spool(8);
        for _ in 0..3 {
            let mut kept = Spooled::default();
            spool.keep(&mut kept, b"12345678");
            assert_eq!((spool.in_memory, spool.end), (8, 0));
            spool.forget(kept);
        }
        assert_eq!(spool.in_memory, 0);
    }

    #[test]
    fn a_full_disk_is_remembered() {
        let file = File::options().read(true).write(true).open("/dev/full").unwrap();
        let mut spool = Spool { file, ..spool(4) };
        let mut kept = Spooled::default();
        spool.keep(&mut kept, b"1234");
        assert!(spool.failure().is_none() && kept.is_whole());
        spool.keep(&mut kept, b"5");
        let why = spool.failure().unwrap().to_string();
        assert!(why.contains("No space left") && why.contains("TMPDIR"), "{why}");
        assert_eq!(read(&spool, &kept), b"1234");
        let mut later = Spooled::default();
        spool.forget(kept);
        spool.keep(&mut later, b"6");
        assert!(!later.is_whole(), "not even where there is room: its output would not be whole");
    }
}
