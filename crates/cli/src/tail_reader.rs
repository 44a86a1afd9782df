//! A reader that remembers how its input began and whether it ended within a line or a row. A log that another
//! process is still writing, or was writing when it was killed, ends so.

use std::io::{self, Read};

use crate::csv_state::CsvState;

/// More than the header of a log has.
const BEGIN_MAX: usize = 64;

pub(crate) struct TailReader<R> {
    input: R,
    state: CsvState,
    last: Option<u8>,
    begin: Vec<u8>,
}

impl<R> TailReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, state: CsvState::RecordStart, last: None, begin: vec![] }
    }

    /// Whether the bytes so far end a CSV row: with a line end outside of quotes.
    pub(crate) fn ends_row(&self) -> bool {
        self.state == CsvState::RecordStart
    }

    /// Whether the bytes so far end a line, inside of quotes or not.
    pub(crate) fn ends_line(&self) -> bool {
        self.last.is_none_or(|last| last == b'\n')
    }

    /// The first bytes, 64 at most.
    pub(crate) fn begin(&self) -> &[u8] {
        &self.begin
    }
}

impl<R: Read> Read for TailReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        let bytes = &buffer[..length];
        self.state = self.state.after(bytes);
        self.last = bytes.last().copied().or(self.last);
        let missing = BEGIN_MAX - self.begin.len();
        self.begin.extend_from_slice(&bytes[..length.min(missing)]);
        Ok(length)
    }
}
