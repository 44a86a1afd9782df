//! Splits the input into raw records: lines, NUL-terminated texts, or CSV records, which may span lines.
//!
//! A record is returned as soon as its last byte has been read, so an endless input is followed live. A CSV record
//! is never split: what the `csv` crate reads as one record is one record here. A quote that is never closed and a
//! carriage return that is alone outside of quotes are faults.

use std::io::{self, BufRead};

use crate::csv_state::CsvState;

/// The byte or line end that terminates a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terminator {
    Nul,
    /// A line end. With `crlf`, a carriage return before it belongs to it.
    Line {
        crlf: bool,
    },
    /// A line end, with or without a carriage return. With `quotes`, only outside of quotes.
    Record {
        quotes: bool,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawRecord {
    /// The line that the record begins on, from 1.
    pub(crate) line: u64,
    pub(crate) bytes: Vec<u8>,
    /// Why it is malformed.
    pub(crate) fault: Option<&'static str>,
}

pub(crate) struct RecordReader<R> {
    input: R,
    terminator: Terminator,
    /// The number of lines read.
    lines: u64,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const UNCLOSED: &str = "the quote that opens in this record is not closed by the end of the input";

const BARE_RETURN: &str = "a carriage return in the middle of a line: lines must end with LF or CR LF \
    (to convert those that end with CR alone: tr '\\r' '\\n')";

impl<R: BufRead> RecordReader<R> {
    pub(crate) fn new(input: R, terminator: Terminator) -> Self {
        Self { input, terminator, lines: 0 }
    }

    /// The next record. Skips empty lines; an empty NUL-terminated text counts.
    pub(crate) fn next(&mut self) -> io::Result<Option<RawRecord>> {
        loop {
            let line = self.lines + 1;
            let mut bytes = vec![];
            if !self.read_line(&mut bytes)? {
                return Ok(None);
            }
            if line == 1 && self.terminator != Terminator::Nul && bytes.starts_with(BYTE_ORDER_MARK)
            {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            let mut fault = None;
            match self.terminator {
                Terminator::Nul => drop_end(&mut bytes, 0),
                Terminator::Line { crlf } => {
                    drop_end(&mut bytes, b'\n');
                    if crlf {
                        drop_end(&mut bytes, b'\r');
                    }
                }
                Terminator::Record { quotes } => fault = self.finish_record(&mut bytes, quotes)?,
            }
            if !bytes.is_empty() || self.terminator == Terminator::Nul {
                return Ok(Some(RawRecord { line, bytes, fault }));
            }
        }
    }

    /// Reads the rest of a record after its first line, and removes its line end.
    fn finish_record(
        &mut self,
        bytes: &mut Vec<u8>,
        quotes: bool,
    ) -> io::Result<Option<&'static str>> {
        let mut place = CsvState::RecordStart;
        let mut read = 0;
        let mut fault = None;
        loop {
            let line = &bytes[read..];
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            let content = content.strip_suffix(b"\r").unwrap_or(content);
            for part in content.split_inclusive(|byte| *byte == b'\r') {
                place = if quotes { place.after(part) } else { CsvState::Field };
                if part.ends_with(b"\r") && place != CsvState::Quoted {
                    fault = Some(BARE_RETURN);
                }
            }
            let end = content.len();
            if place != CsvState::Quoted {
                bytes.truncate(read + end);
                return Ok(fault);
            }
            place = place.after(&line[end..]);
            read = bytes.len();
            if !self.read_line(bytes)? {
                return Ok(Some(UNCLOSED));
            }
        }
    }

    fn read_line(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        let end = if self.terminator == Terminator::Nul { 0 } else { b'\n' };
        let read = self.input.read_until(end, bytes)? > 0;
        self.lines += u64::from(read);
        Ok(read)
    }
}

fn drop_end(bytes: &mut Vec<u8>, end: u8) {
    if bytes.last() == Some(&end) {
        bytes.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: Terminator = Terminator::Record { quotes: true };
    const TSV: Terminator = Terminator::Record { quotes: false };

    fn texts(input: &str, terminator: Terminator) -> Vec<(u64, String)> {
        let mut texts = RecordReader::new(input.as_bytes(), terminator);
        let mut found = vec![];
        while let Some(text) = texts.next().unwrap() {
            assert_eq!(text.fault, None, "{text:?}");
            found.push((text.line, String::from_utf8(text.bytes).unwrap()));
        }
        found
    }

    fn fault(input: &str, terminator: Terminator) -> (u64, &'static str) {
        let mut texts = RecordReader::new(input.as_bytes(), terminator);
        loop {
            let text = texts.next().unwrap().expect("a fault");
            if let Some(fault) = text.fault {
                assert_eq!(texts.next().unwrap(), None, "nothing is read of what follows it");
                return (text.line, fault);
            }
        }
    }

    fn owned(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
        expected.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
    }

    #[test]
    fn empty_lines_are_passed_over_and_counted() {
        let lines = Terminator::Line { crlf: false };
        assert_eq!(texts("\na\n\nb c", lines), owned(&[(2, "a"), (4, "b c")]));
        assert_eq!(texts("a\r\n\r\nb", lines), owned(&[(1, "a\r"), (2, "\r"), (3, "b")]));
        assert_eq!(
            texts("a\r\n\r\nb\r", Terminator::Line { crlf: true }),
            owned(&[(1, "a"), (3, "b")])
        );
        assert_eq!(texts("a\r\n\r\n\nb\r\n", TSV), owned(&[(1, "a"), (4, "b")]));
    }

    #[test]
    fn with_nul_every_text_is_an_item_and_no_byte_is_left_out() {
        let found = texts("\u{feff}a\nb\0\0c\r\n", Terminator::Nul);
        assert_eq!(found, owned(&[(1, "\u{feff}a\nb"), (2, ""), (3, "c\r\n")]));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_text() {
        for terminator in [Terminator::Line { crlf: false }, CSV, TSV] {
            let found = texts("\u{feff}a\n\u{feff}b", terminator);
            assert_eq!(found, owned(&[(1, "a"), (2, "\u{feff}b")]));
        }
        assert_eq!(texts("\u{feff}\"a\nb\",c", CSV), owned(&[(1, "\"a\nb\",c")]));
    }

    #[test]
    fn a_record_is_one_text_over_all_of_its_lines() {
        let input = "1,\"a\nb \"\"c\"\"\r\n\n\",d\r\n2,x\n\n3,5\" disk\n4,\"y\"\n";
        let expected = owned(&[
            (1, "1,\"a\nb \"\"c\"\"\r\n\n\",d"),
            (5, "2,x"),
            (7, "3,5\" disk"),
            (8, "4,\"y\""),
        ]);
        assert_eq!(texts(input, CSV), expected);
        assert_eq!(texts("1\t\"a\nb\"\n", TSV), owned(&[(1, "1\t\"a"), (2, "b\"")]));
    }

    #[test]
    fn a_quote_that_is_never_closed_is_a_fault_of_the_line_where_its_record_began() {
        assert_eq!(fault("a\n\"b\nc\n\nd\n", CSV), (2, UNCLOSED));
        assert_eq!(fault("\"", CSV), (1, UNCLOSED));
        assert_eq!(texts("\"b\"", CSV), owned(&[(1, "\"b\"")]));
    }

    #[test]
    fn a_carriage_return_in_a_line_is_a_fault_unless_it_is_quoted() {
        assert_eq!(fault("a\rb\rc\r", CSV), (1, BARE_RETURN));
        assert_eq!(fault("a\n1\tb\rc\n", TSV), (2, BARE_RETURN));
        assert_eq!(fault("\"a\nb\"\r,c\n", CSV), (1, BARE_RETURN));
        assert_eq!(texts("\"a\rb\",c\r\n", CSV), owned(&[(1, "\"a\rb\",c")]));
    }

    #[test]
    fn texts_are_the_records_that_a_csv_reader_sees() {
        // Every text of up to eight of these bytes.
        let alphabet = b"\",\na";
        for length in 0..8_u32 {
            for number in 0..4_usize.pow(length) {
                let byte = |place| alphabet[number / 4_usize.pow(place) % 4];
                let input: Vec<u8> = (0..length).map(byte).collect();
                let mut texts = RecordReader::new(&input[..], CSV);
                let mut ours = vec![];
                while let Some(text) = texts.next().unwrap() {
                    let mut reader = csv::ReaderBuilder::new();
                    let mut reader = reader.has_headers(false).from_reader(&text.bytes[..]);
                    ours.extend(reader.byte_records().map(Result::unwrap));
                }
                let mut reader = csv::ReaderBuilder::new();
                let mut reader = reader.has_headers(false).flexible(true).from_reader(&input[..]);
                let whole: Vec<_> = reader.byte_records().map(Result::unwrap).collect();
                assert_eq!(ours, whole, "{:?}", String::from_utf8_lossy(&input));
            }
        }
    }
}
