//! The output of each task: whole, in the order of the items, never interleaved.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, Write};

use crate::exec::Captured;
use crate::streams;

/// Up to this size output that waits for its turn is kept in memory; above, in its file.
const IN_MEMORY_MAX: u64 = 64 * 1024;

/// What a task wrote, over all its tries.
#[derive(Debug, Default)]
pub(crate) struct Output {
    stdout: Vec<Stream>,
    stderr: Vec<Stream>,
}

#[derive(Debug)]
enum Stream {
    Memory(Vec<u8>),
    File(File),
}

impl Output {
    pub(crate) fn add(&mut self, captured: Captured) -> io::Result<()> {
        self.stdout.extend(Stream::new(captured.stdout)?);
        self.stderr.extend(Stream::new(captured.stderr)?);
        Ok(())
    }

    fn write(self, tag: Option<&[u8]>) -> io::Result<()> {
        copy(self.stdout, &mut streams::output(), tag)?;
        copy(self.stderr, &mut streams::errors(), tag)
    }
}

impl Stream {
    /// What was written to the file; nothing if that is nothing.
    fn new(mut file: File) -> io::Result<Option<Self>> {
        let length = file.stream_position()?.max(file.metadata()?.len());
        file.rewind()?;
        if length == 0 {
            return Ok(None);
        }
        if length > IN_MEMORY_MAX {
            return Ok(Some(Self::File(file)));
        }
        let mut bytes = vec![];
        file.read_to_end(&mut bytes)?;
        Ok(Some(Self::Memory(bytes)))
    }

    fn reader(self) -> Box<dyn BufRead> {
        match self {
            Self::Memory(bytes) => Box::new(Cursor::new(bytes)),
            Self::File(file) => Box::new(BufReader::new(file)),
        }
    }
}

fn copy(streams: Vec<Stream>, out: &mut impl Write, tag: Option<&[u8]>) -> io::Result<()> {
    for stream in streams {
        let mut reader = stream.reader();
        let Some(tag) = tag else {
            io::copy(&mut reader, out)?;
            continue;
        };
        let mut line = vec![];
        while reader.read_until(b'\n', &mut line)? > 0 {
            if line.last() != Some(&b'\n') {
                line.push(b'\n');
            }
            out.write_all(&[tag, b"\t", &line].concat())?;
            line.clear();
        }
    }
    out.flush()
}

/// Outputs, let out in the order in which their tasks were started.
#[derive(Debug, Default)]
pub(crate) struct InOrder {
    next: u64,
    waiting: BTreeMap<u64, (Output, Option<Vec<u8>>)>,
}

impl InOrder {
    /// Takes the output of a task, by its place among those started, and writes all that now has
    /// its turn.
    pub(crate) fn put(
        &mut self,
        place: u64,
        output: Output,
        tag: Option<Vec<u8>>,
    ) -> io::Result<()> {
        self.waiting.insert(place, (output, tag));
        while let Some((output, tag)) = self.waiting.remove(&self.next) {
            self.next += 1;
            output.write(tag.as_deref())?;
        }
        Ok(())
    }
}
