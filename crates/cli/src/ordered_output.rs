//! Writes the output of each task whole, in the order of the items, never interleaved.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use crate::error::Error;
use crate::spool::{Spool, Spooled};
use crate::stdio;

/// The most outputs that may wait for their turn. At this number, no task starts until some are written.
pub(crate) const WAITING_MAX: usize = 100_000;

/// The output of a task, over all its tries.
#[derive(Debug, Default)]
pub(crate) struct TaskOutput {
    pub(crate) stdout: Spooled,
    pub(crate) stderr: Spooled,
}

/// Holds outputs back until all tasks started before them have been written.
#[derive(Debug, Default)]
pub(crate) struct OrderedOutput {
    next: u64,
    waiting: BTreeMap<u64, (TaskOutput, Option<Vec<u8>>)>,
}

impl OrderedOutput {
    /// Whether one more output may wait, so that another task may start.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// Takes the output of the task that was started as number `place`, and writes every output that is next in
    /// order.
    pub(crate) fn put(
        &mut self,
        spool: &mut Spool,
        place: u64,
        output: TaskOutput,
        tag: Option<Vec<u8>>,
    ) -> Result<(), Error> {
        self.waiting.insert(place, (output, tag));
        while let Some((output, tag)) = self.waiting.remove(&self.next) {
            self.next += 1;
            if !(output.stdout.is_whole() && output.stderr.is_whole()) {
                continue; // Write none of it rather than a part. The spool reports why.
            }
            let tag = tag.as_deref();
            write(spool, output.stdout, stdio::output(), tag).map_err(Error::Output)?;
            write(spool, output.stderr, stdio::errors(), tag).map_err(Error::Messages)?;
        }
        Ok(())
    }
}

fn write(spool: &mut Spool, kept: Spooled, to: impl Write, tag: Option<&[u8]>) -> io::Result<()> {
    if kept.is_empty() {
        return Ok(());
    }
    let written = copy(spool.reader(&kept), to, tag);
    spool.forget(kept);
    written
}

fn copy(from: impl Read, to: impl Write, tag: Option<&[u8]>) -> io::Result<()> {
    let mut from = BufReader::with_capacity(1 << 16, from);
    let mut to = BufWriter::with_capacity(1 << 16, to);
    let copied = match tag {
        None => io::copy(&mut from, &mut to).map(drop),
        Some(tag) => copy_tagged(&mut from, &mut to, tag),
    };
    // After an error, discard the buffer: dropping a BufWriter would write it again.
    copied.and_then(|()| to.flush()).inspect_err(|_| drop(to.into_parts()))
}

fn copy_tagged(from: &mut impl BufRead, to: &mut impl Write, tag: &[u8]) -> io::Result<()> {
    let mut line_begins = true;
    loop {
        let bytes = from.fill_buf()?;
        if bytes.is_empty() {
            return if line_begins { Ok(()) } else { to.write_all(b"\n") };
        }
        let length = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        if line_begins {
            to.write_all(tag)?;
            to.write_all(b"\t")?;
        }
        to.write_all(&bytes[..length])?;
        line_begins = bytes[length - 1] == b'\n';
        from.consume(length);
    }
}
