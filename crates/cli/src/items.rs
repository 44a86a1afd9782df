//! The items: lines, NUL-terminated texts or records. A thread reads them ahead.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;

use tokio::sync::mpsc;

use crate::columns::{Column, Columns, HeaderLine};
use crate::display::shown;
use crate::error::Error;
use crate::record_reader::{RawRecord, RecordReader, Terminator};
use crate::weight;

/// The number of items read ahead.
const AHEAD: usize = 1_024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// The item's number, from 1.
    pub(crate) seq: u64,
    /// The line that the item begins on, from 1.
    pub(crate) line: u64,
    /// The item as it is in the input, without its line end.
    pub(crate) text: Vec<u8>,
    pub(crate) weight: u64,
    /// The fields, if the input has columns.
    pub(crate) fields: Option<csv::ByteRecord>,
}

/// A message of the reader thread.
#[derive(Debug)]
pub(crate) enum InputEvent {
    /// The columns. Sent once, before all items, if the input has columns.
    Columns(Columns),
    Item(Item),
    /// A malformed item, and why. The reader goes on after it.
    Malformed {
        line: u64,
        what: String,
    },
    /// A message for the user.
    Notice(String),
    /// An error that ends the input.
    Stop(Error),
}

/// The format of the input.
#[derive(Debug, Clone)]
pub(crate) struct Format {
    pub(crate) terminator: Terminator,
    /// The byte between fields, if there are columns.
    pub(crate) delimiter: Option<u8>,
    pub(crate) header: HeaderLine,
    pub(crate) weight: Option<Column>,
}

/// The number of items, set once it is known.
pub(crate) type Total = Arc<OnceLock<u64>>;

/// The name of the input in messages.
pub(crate) fn name(path: Option<&Path>) -> PathBuf {
    let path = path.filter(|path| *path != Path::new("-"));
    path.map_or_else(|| "standard input".into(), Path::to_owned)
}

/// Opens the input and starts the reader thread. The number of items is known at once for a regular file, else
/// at the end of the input.
pub(crate) fn read(
    path: Option<&Path>,
    format: Format,
) -> Result<(mpsc::Receiver<InputEvent>, Total), Error> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let total = Total::default();
    let name = name(path);
    let input: Box<dyn Read + Send> = match path {
        Some(path) if path != Path::new("-") => {
            let error = |error| Error::Input { path: path.to_owned(), error };
            let file = File::open(path).map_err(error)?;
            let metadata = file.metadata().map_err(error)?;
            if metadata.is_dir() {
                return Err(error(io::ErrorKind::IsADirectory.into()));
            }
            if metadata.is_file() {
                let items = count(path, &format).map_err(error)?;
                total.get_or_init(|| items);
            }
            Box::new(file)
        }
        _ => Box::new(io::stdin()),
    };
    let tell = Arc::clone(&total);
    let read_ahead = move || {
        let mut items = 0;
        for found in ItemReader::new(BufReader::new(input), format, name) {
            items += u64::from(matches!(found, InputEvent::Item(_) | InputEvent::Malformed { .. }));
            if sender.blocking_send(found).is_err() {
                return; // The run has ended.
            }
        }
        tell.get_or_init(|| items);
    };
    thread::Builder::new().name("items".into()).spawn(read_ahead).map_err(Error::Start)?;
    Ok((receiver, total))
}

fn count(path: &Path, format: &Format) -> io::Result<u64> {
    let mut texts = RecordReader::new(BufReader::new(File::open(path)?), format.terminator);
    let (mut items, mut begun) = (0, false);
    while let Some(text) = texts.next()? {
        if let (Some(delimiter), None, false) = (format.delimiter, text.fault, begun) {
            begun = true;
            if format.header.is(&fields(&text.bytes, delimiter)) {
                continue;
            }
        }
        items += 1;
    }
    Ok(items)
}

struct ItemReader<R> {
    records: RecordReader<R>,
    format: Format,
    input: PathBuf,
    /// Events that are not sent yet.
    found: VecDeque<InputEvent>,
    /// The index of the weight column. Set when the columns are known.
    weight: Option<usize>,
    columns_known: bool,
    told_of_returns: bool,
    seq: u64,
    ended: bool,
}

impl<R: BufRead> ItemReader<R> {
    fn new(input: R, format: Format, name: PathBuf) -> Self {
        Self {
            records: RecordReader::new(input, format.terminator),
            format,
            input: name,
            found: VecDeque::new(),
            weight: None,
            columns_known: false,
            told_of_returns: false,
            seq: 0,
            ended: false,
        }
    }

    fn take(&mut self, text: RawRecord) {
        let RawRecord { line, bytes, fault } = text;
        if let Some(what) = fault {
            self.malformed(line, what.to_owned());
            return;
        }
        let Some(delimiter) = self.format.delimiter else {
            if bytes.ends_with(b"\r")
                && self.format.terminator != Terminator::Nul
                && !self.told_of_returns
            {
                self.told_of_returns = true;
                self.found.push_back(InputEvent::Notice(format!("line {line} {ENDS_IN_RETURN}")));
            }
            self.item(line, bytes, None);
            return;
        };
        let fields = fields(&bytes, delimiter);
        if !self.columns_known {
            let is_header = self.format.header.is(&fields);
            if !self.learn(Columns::new(&fields, is_header)) || is_header {
                return;
            }
        }
        self.item(line, bytes, Some(fields));
    }

    /// Stores the columns. Returns whether the weight column is among them.
    fn learn(&mut self, columns: Columns) -> bool {
        self.columns_known = true;
        match self.format.weight.as_ref().map(|weight| columns.place(weight)).transpose() {
            Ok(place) => self.weight = place,
            Err(what) => {
                self.stop(Error::Usage(format!("--weight: {what}")));
                return false;
            }
        }
        self.found.push_back(InputEvent::Columns(columns));
        true
    }

    fn item(&mut self, line: u64, text: Vec<u8>, fields: Option<csv::ByteRecord>) {
        self.seq += 1;
        let mut item = Item { seq: self.seq, line, text, weight: 1, fields };
        match self.weight.map(|place| item.weighs(place)).transpose() {
            Ok(weight) => {
                item.weight = weight.unwrap_or(1);
                self.found.push_back(InputEvent::Item(item));
            }
            Err(what) => self.found.push_back(InputEvent::Malformed { line, what }),
        }
    }

    fn malformed(&mut self, line: u64, what: String) {
        if !self.columns_known && self.format.header == HeaderLine::Yes {
            let what = format!("line {line}, which names the columns: {what}");
            self.broken(io::Error::new(io::ErrorKind::InvalidData, what));
        } else {
            self.found.push_back(InputEvent::Malformed { line, what });
        }
    }

    fn broken(&mut self, error: io::Error) {
        self.stop(Error::Input { path: self.input.clone(), error });
    }

    fn stop(&mut self, error: Error) {
        self.ended = true;
        self.found.push_back(InputEvent::Stop(error));
    }
}

const ENDS_IN_RETURN: &str = "and maybe others end in a carriage return, which is part of the item: if \
    the input comes from Windows, --crlf leaves it out";

impl<R: BufRead> Iterator for ItemReader<R> {
    type Item = InputEvent;

    fn next(&mut self) -> Option<InputEvent> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Some(found);
            }
            if self.ended {
                return None;
            }
            match self.records.next() {
                Ok(Some(text)) => self.take(text),
                Ok(None) => self.ended = true,
                Err(error) => self.broken(error),
            }
        }
    }
}

impl Item {
    /// A field of the item, by index.
    pub(crate) fn field(&self, place: usize) -> Result<&[u8], String> {
        let fields = self.fields.as_ref().map_or(0, csv::ByteRecord::len);
        let field = self.fields.as_ref().and_then(|record| record.get(place));
        field.ok_or_else(|| format!("it has {fields} fields, none in column {}", place + 1))
    }

    fn weighs(&self, place: usize) -> Result<u64, String> {
        let field = self.field(place)?;
        weight::parse(field).map_err(|what| {
            let column = place + 1;
            format!("the weight `{}` in column {column} cannot be taken: {what}", shown(field))
        })
    }
}

/// The fields of a record.
fn fields(text: &[u8], delimiter: u8) -> csv::ByteRecord {
    // Tab-separated fields are taken as they are; only CSV has quotes.
    let mut reader = csv::ReaderBuilder::new();
    reader.delimiter(delimiter).quoting(delimiter == b',').has_headers(false);
    // The text is one record: every line end in it is quoted.
    reader.terminator(csv::Terminator::Any(b'\n'));
    let mut record = csv::ByteRecord::new();
    let read = reader.from_reader(text).read_byte_record(&mut record);
    assert!(matches!(read, Ok(true)), "a text that is not empty holds a record");
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Format {
        let terminator = Terminator::Line { crlf: false };
        Format { terminator, delimiter: None, header: HeaderLine::No, weight: None }
    }

    fn csv() -> Format {
        Format { terminator: Terminator::Record { quotes: true }, delimiter: Some(b','), ..lines() }
    }

    fn found(input: &str, format: Format) -> Vec<InputEvent> {
        ItemReader::new(input.as_bytes(), format, "input".into()).collect()
    }

    /// The events as text.
    fn told(input: &str, format: Format) -> Vec<String> {
        let tell = |found| match found {
            InputEvent::Columns(columns) => format!("{columns}"),
            InputEvent::Item(item) => {
                format!("{} line {}: {}", item.seq, item.line, shown(&item.text))
            }
            InputEvent::Malformed { line, what } => format!("line {line}: {what}"),
            InputEvent::Notice(what) => what,
            InputEvent::Stop(error) => format!("stop: {error}"),
        };
        found(input, format).into_iter().map(tell).collect()
    }

    #[test]
    fn items_are_numbered_and_know_their_line() {
        assert_eq!(told("\na\n\nb c", lines()), ["1 line 2: a", "2 line 4: b c"]);
        let format = Format { header: HeaderLine::Yes, ..csv() };
        let input = "id,note\n1,\"two\nlines\"\n\n2,x\n";
        let expected =
            ["{id} and {note}", "1 line 2: 1,\"two\\nlines\"", "2 line 5: 2,x"].map(str::to_owned);
        assert_eq!(told(input, format), expected);
    }

    #[test]
    fn a_field_is_found_by_its_place() {
        let all = found("x,\"1, or\n2\"\n", csv());
        let [InputEvent::Columns(_), InputEvent::Item(item)] = &all[..] else { panic!("{all:?}") };
        assert_eq!(item.text, b"x,\"1, or\n2\"");
        assert_eq!(item.field(1), Ok(&b"1, or\n2"[..]));
        assert_eq!(item.field(2).unwrap_err(), "it has 2 fields, none in column 3");
    }

    #[test]
    fn a_malformed_record_is_named_and_the_rest_is_read() {
        let format = Format { weight: Some(Column::Number(2)), ..csv() };
        let told = told("a,5\nb,many\nc\nd,\ne,1.5\nf,7\n\"g,8\nh,9\n", format);
        let words = [
            "{1} and {2}",
            "1 line 1: a,5",
            "line 2: the weight `many` in column 2 cannot be taken: it is not a number",
            "line 3: it has 1 fields, none in column 2",
            "line 4: the weight `` in column 2 cannot be taken: it is empty",
            "line 5: the weight `1.5` in column 2 cannot be taken: it is not a whole number",
            "6 line 6: f,7",
            "line 7: the quote that opens in this record is not closed",
        ];
        assert_eq!(told.len(), words.len(), "{told:?}");
        assert!(told.iter().zip(words).all(|(told, words)| told.starts_with(words)), "{told:?}");
    }

    #[test]
    fn a_header_that_is_no_record_or_lacks_the_weights_ends_it_all() {
        let header = Format { header: HeaderLine::Yes, ..csv() };
        let told_of = told("\"a,b\n1,2\n", header.clone());
        assert!(told_of[0].starts_with("stop: cannot read input: line 1, which names the columns"));
        assert_eq!(told_of.len(), 1);
        let format = Format { weight: Some(Column::parse("w")), ..header };
        let told_of = told("a,b\n1,2\n3,4\n", format);
        assert_eq!(told_of, ["stop: --weight: there is no column {w}; there are {a} and {b}"]);
        let format = Format { weight: Some(Column::Number(3)), ..csv() };
        assert_eq!(told("1,2\n3,4\n", format).len(), 1);
    }

    #[test]
    fn carriage_returns_at_line_ends_are_told_of_once() {
        let told_of = told("a\nb\r\nc\r\n", lines());
        assert_eq!(told_of.len(), 4);
        assert!(told_of[1].starts_with("line 2 and maybe others end in a carriage return"));
        let crlf = Format { terminator: Terminator::Line { crlf: true }, ..lines() };
        assert_eq!(told("a\r\n\r\nb", crlf), ["1 line 1: a", "2 line 3: b"]);
        let nul = Format { terminator: Terminator::Nul, ..lines() };
        assert_eq!(told("a\r\0", nul), ["1 line 1: a\\r"]);
        assert_eq!(told("a,b\r\n\r\n", csv()), ["{1} and {2}", "1 line 1: a,b"]);
    }
}
