//! The items: lines, NUL-terminated texts or records, read ahead by a thread of their own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;

use tokio::sync::mpsc;

use crate::error::Error;

/// How many items are read ahead.
const AHEAD: usize = 1_024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its number among the items, from 1.
    pub(crate) seq: u64,
    /// The line that it is on, from 1.
    pub(crate) line: u64,
    pub(crate) text: Vec<u8>,
    pub(crate) weight: u64,
    record: Option<csv::ByteRecord>,
    header: Option<Arc<csv::ByteRecord>>,
}

/// A column, by number (from 1) or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Column {
    Number(usize),
    Name(String),
}

impl Column {
    pub(crate) fn parse(text: &str) -> Self {
        match text.parse() {
            Ok(number @ 1..) => Self::Number(number),
            _ => Self::Name(text.to_owned()),
        }
    }

    pub(crate) fn is_name(&self) -> bool {
        matches!(self, Self::Name(_))
    }
}

/// What the reader found.
#[derive(Debug)]
pub(crate) enum Found {
    Item(Item),
    /// A line that is no item, and why. The rest is read on.
    Malformed {
        line: u64,
        what: String,
    },
    /// The input cannot be read any further.
    Broken(io::Error),
}

/// How to make items of the input.
#[derive(Debug, Clone)]
pub(crate) struct Format {
    pub(crate) terminator: u8,
    /// What stands between fields, where there are columns.
    pub(crate) delimiter: Option<u8>,
    pub(crate) header: bool,
    pub(crate) weight: Option<Column>,
}

/// How many items there are, from when that is known.
pub(crate) type Total = Arc<OnceLock<u64>>;

/// Opens the input and reads it ahead. How many items there are is known at once of a file that is
/// all there, else when its end has been read.
pub(crate) fn read(
    path: Option<&Path>,
    format: Format,
) -> Result<(mpsc::Receiver<Found>, Total), Error> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let total = Total::default();
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
        for found in Reader::new(BufReader::new(input), format) {
            items += 1;
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
    let mut input = BufReader::new(File::open(path)?);
    let (mut items, mut text) = (0, vec![]);
    while next_text(&mut input, format.terminator, &mut text)? > 0 {
        items += u64::from(!is_passed_over(&text, format.terminator));
        text.clear();
    }
    Ok(items - u64::from(format.header && items > 0))
}

fn next_text(input: &mut impl BufRead, terminator: u8, text: &mut Vec<u8>) -> io::Result<usize> {
    let length = input.read_until(terminator, text)?;
    if text.last() == Some(&terminator) {
        text.pop();
    }
    Ok(length)
}

fn is_passed_over(text: &[u8], terminator: u8) -> bool {
    terminator == b'\n' && text.is_empty()
}

struct Reader<R> {
    input: R,
    format: Format,
    header: Option<Arc<csv::ByteRecord>>,
    line: u64,
    seq: u64,
    broken: bool,
}

impl<R: BufRead> Reader<R> {
    fn new(input: R, format: Format) -> Self {
        Self { input, format, header: None, line: 0, seq: 0, broken: false }
    }

    fn item(&mut self, text: Vec<u8>) -> Result<Option<Item>, String> {
        let record = match self.format.delimiter {
            Some(delimiter) => Some(record(&text, delimiter)?),
            None => None,
        };
        if self.format.header && self.header.is_none() {
            self.header = record.map(Arc::new);
            return Ok(None);
        }
        self.seq += 1;
        let header = self.header.clone();
        let mut item = Item { seq: self.seq, line: self.line, text, weight: 1, record, header };
        if let Some(column) = &self.format.weight {
            item.weight = weight(item.field(column)?)?;
        }
        Ok(Some(item))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        while !self.broken {
            let mut text = vec![];
            self.line += 1;
            match next_text(&mut self.input, self.format.terminator, &mut text) {
                Ok(0) => return None,
                Ok(_) if is_passed_over(&text, self.format.terminator) => {}
                Ok(_) => match self.item(text) {
                    Ok(Some(item)) => return Some(Found::Item(item)),
                    Ok(None) => {}
                    Err(what) => return Some(Found::Malformed { line: self.line, what }),
                },
                Err(error) => {
                    self.broken = true;
                    return Some(Found::Broken(error));
                }
            }
        }
        None
    }
}

impl Item {
    /// A field of the item.
    pub(crate) fn field(&self, column: &Column) -> Result<&[u8], String> {
        let record = self.record.as_ref().ok_or("the input has no columns")?;
        let index = match (column, &self.header) {
            (Column::Number(number), _) => number - 1,
            (Column::Name(name), Some(header)) => header
                .iter()
                .position(|field| field == name.as_bytes())
                .ok_or_else(|| format!("there is no column `{name}`"))?,
            (Column::Name(name), None) => return Err(format!("there is no column `{name}`")),
        };
        let fields = record.len();
        record
            .get(index)
            .ok_or_else(|| format!("it has {fields} fields, none in column {}", index + 1))
    }
}

fn record(text: &[u8], delimiter: u8) -> Result<csv::ByteRecord, String> {
    // Fields between tabs are taken as they are; only CSV has quotes.
    let quoting = delimiter == b',';
    if quoting && text.iter().filter(|byte| **byte == b'"').count() % 2 == 1 {
        return Err("a quote is not closed (a record must be on one line)".to_owned());
    }
    let mut reader = csv::ReaderBuilder::new();
    let mut reader =
        reader.delimiter(delimiter).quoting(quoting).has_headers(false).from_reader(text);
    let mut record = csv::ByteRecord::new();
    reader.read_byte_record(&mut record).map_err(|error| error.to_string())?;
    Ok(record)
}

fn weight(field: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(field);
    text.trim().parse().map_err(|_| format!("the weight `{text}` is not a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Format {
        Format { terminator: b'\n', delimiter: None, header: false, weight: None }
    }

    fn texts(input: &str, format: Format) -> Vec<(u64, u64, String)> {
        let reader = Reader::new(input.as_bytes(), format);
        let items = reader.map(|found| match found {
            Found::Item(item) => (item.seq, item.line, String::from_utf8(item.text).unwrap()),
            other => panic!("{other:?}"),
        });
        items.collect()
    }

    #[test]
    fn empty_lines_are_passed_over_and_counted() {
        let expected = vec![(1, 2, "a".to_owned()), (2, 4, "b c".to_owned())];
        assert_eq!(texts("\na\n\nb c", lines()), expected);
    }

    #[test]
    fn with_nul_every_text_is_an_item() {
        let format = Format { terminator: 0, ..lines() };
        let expected = ["a\nb", "", "c"].map(str::to_owned).to_vec();
        let found: Vec<_> = texts("a\nb\0\0c", format).into_iter().map(|(.., text)| text).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_field_is_found_by_number_and_by_name() {
        let format = Format { delimiter: Some(b','), header: true, ..lines() };
        let mut reader = Reader::new(&b"name,note\nx,\"1, or 2\"\n"[..], format);
        let Some(Found::Item(item)) = reader.next() else { panic!() };
        assert_eq!(item.text, b"x,\"1, or 2\"");
        assert_eq!(item.field(&Column::Number(1)), Ok(&b"x"[..]));
        assert_eq!(item.field(&Column::Name("note".into())), Ok(&b"1, or 2"[..]));
        assert_eq!(item.field(&Column::Name("no".into())).unwrap_err(), "there is no column `no`");
        assert_eq!(
            item.field(&Column::Number(3)).unwrap_err(),
            "it has 2 fields, none in column 3"
        );
    }

    #[test]
    fn a_malformed_line_is_named_and_the_rest_is_read() {
        let weight = Some(Column::Number(2));
        let format = Format { delimiter: Some(b'\t'), weight, ..lines() };
        let found: Vec<_> = Reader::new(&b"a\t5\nb\tmany\nc\nd\t7\n"[..], format).collect();
        let [
            Found::Item(a),
            Found::Malformed { line: 2, what },
            Found::Malformed { line: 3, .. },
            Found::Item(d),
        ] = &found[..]
        else {
            panic!("{found:?}")
        };
        assert_eq!((a.weight, d.weight), (5, 7));
        assert_eq!(what, "the weight `many` is not a whole number");
    }
}
