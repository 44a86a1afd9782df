//! Where in a CSV record a reader stands, byte by byte.
//!
//! Two things need it that a CSV reader does not tell: whether a text ends inside of quotes, and whether
//! a log ends with a whole row.

/// A place in a record, by the rules of the `csv` crate: a quote opens only where a field begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CsvState {
    RecordStart,
    FieldStart,
    Field,
    Quoted,
    /// After a quote in a quoted field: its end, or half of a quote that is part of it.
    QuoteInQuoted,
}

impl CsvState {
    pub(crate) fn after(self, bytes: &[u8]) -> Self {
        bytes.iter().fold(self, |place, byte| place.next(*byte))
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
