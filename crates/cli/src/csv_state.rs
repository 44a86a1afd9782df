//! A state machine over the bytes of CSV: whether the next byte is inside of quotes, or begins a record.
//!
//! The `csv` crate does not expose its state, and two callers need it: `record_reader.rs`, to see whether a line
//! ends inside of quotes, and `tail_reader.rs`, to see whether a log ends with a whole row.

/// The state, by the rules of the `csv` crate: a quote opens only at the start of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CsvState {
    RecordStart,
    FieldStart,
    Field,
    Quoted,
    /// After a quote in a quoted field: the end of the field, or the first half of an escaped quote.
    QuoteInQuoted,
}

impl CsvState {
    pub(crate) fn after(self, bytes: &[u8]) -> Self {
        bytes.iter().fold(self, |state, byte| state.next(*byte))
    }

    fn next(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Quoted, b'"') => Self::QuoteInQuoted,
            (Self::Quoted, _)
            | (Self::RecordStart | Self::FieldStart | Self::QuoteInQuoted, b'"') => Self::Quoted,
            (_, b'\n' | b'\r') => Self::RecordStart,
            (_, b',') => Self::FieldStart,
            _ => Self::Field,
        }
    }
}
