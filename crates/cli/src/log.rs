//! The log: a row for each task that ends, written as it ends; and read back to go on.
//!
//! `seq,start_ns,end_ns,weight,exit_code,input`, times in nanoseconds since the Unix epoch. They
//! come from the monotonic clock, tied to the wall clock once when the run begins, so that they
//! never jump within a run and a later run can place them.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::error::{Error, LogError};

const HEADER: [&str; 6] = ["seq", "start_ns", "end_ns", "weight", "exit_code", "input"];

/// The log, open for writing, to one run at a time.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    begin: Instant,
    begin_ns: u64,
}

/// A task that ended.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) seq: u64,
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    pub(crate) weight: u64,
    pub(crate) exit_code: i32,
    pub(crate) input: &'a [u8],
}

/// What a log says of earlier runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// How often each input has ended well, and not been asked for since.
    done: HashMap<Vec<u8>, u64>,
    /// Every task that ended: when, since the epoch, and its weight.
    ended: Vec<(u64, u64)>,
    /// The weights of the tasks that failed, in the order in which they ended.
    failed: Vec<u64>,
}

impl Log {
    /// Opens a log: a new one, or one to go on with.
    pub(crate) fn open(path: &Path, resume: bool) -> Result<(Self, Past), Error> {
        Self::try_open(path, resume).map_err(|error| Error::Log { path: path.to_owned(), error })
    }

    fn try_open(path: &Path, resume: bool) -> Result<(Self, Past), LogError> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => LogError::InUse,
            TryLockError::Error(error) => LogError::Io(error),
        })?;
        let mut past = Past::default();
        if file.metadata()?.len() > 0 {
            if !resume {
                return Err(LogError::Exists);
            }
            let whole;
            (past, whole) = Past::read(io::BufReader::new(&file))?;
            // What is written next begins where the last whole row ends.
            file.set_len(whole)?;
        }
        if file.seek(SeekFrom::End(0))? == 0 {
            write_row(&mut file, HEADER)?;
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let begin_ns = nanos(since_epoch.unwrap_or_default());
        Ok((Self { file, begin: Instant::now(), begin_ns }, past))
    }

    /// Writes a row, whole, before it returns.
    pub(crate) fn write(&mut self, row: &Row<'_>) -> io::Result<()> {
        let ns = |instant: Instant| self.begin_ns + nanos(instant - self.begin);
        let numbers = [row.seq, ns(row.start), ns(row.end), row.weight].map(|n| n.to_string());
        let exit_code = row.exit_code.to_string();
        let fields = numbers.iter().map(String::as_bytes).chain([exit_code.as_bytes(), row.input]);
        write_row(&mut self.file, fields)
    }

    /// When this run began, since the epoch.
    pub(crate) fn begin_ns(&self) -> u64 {
        self.begin_ns
    }
}

impl Past {
    /// Reads a log, and says how much of it is whole: a run that was killed may have left a part of
    /// a row at the end, which is passed over.
    pub(crate) fn read(input: impl io::Read) -> Result<(Self, u64), LogError> {
        let mut past = Self::default();
        let mut reader = csv::ReaderBuilder::new();
        let mut reader = reader.has_headers(false).flexible(true).from_reader(Recorder::new(input));
        let mut whole = 0;
        // A record is known to be whole once there is another behind it, or the end of the log is
        // the end of a row.
        let mut last: Option<(u64, csv::ByteRecord)> = None;
        loop {
            let (line, begins) = (reader.position().line(), reader.position().byte());
            let mut record = csv::ByteRecord::new();
            let more =
                reader.read_byte_record(&mut record).map_err(|error| csv_error(line, &error))?;
            if !more && !reader.get_ref().ends_whole() {
                return Ok((past, whole));
            }
            if let Some((line, record)) = last {
                if whole > 0 {
                    past.add(&record).map_err(|what| malformed(line, what))?;
                } else if record != HEADER[..] {
                    return Err(malformed(line, "this is not the header of a log"));
                }
                whole = begins;
            }
            if !more {
                return Ok((past, whole));
            }
            last = Some((line, record));
        }
    }

    fn add(&mut self, record: &csv::ByteRecord) -> Result<(), &'static str> {
        if record.len() != HEADER.len() {
            return Err("a row has six fields: seq,start_ns,end_ns,weight,exit_code,input");
        }
        let text = |field: usize| std::str::from_utf8(&record[field]).unwrap_or_default();
        let number = |field: usize| text(field).parse::<u64>();
        number(0).map_err(|_| "seq is not a whole number")?;
        let start = number(1).map_err(|_| "start_ns is not a whole number")?;
        let end = number(2).map_err(|_| "end_ns is not a whole number")?;
        let weight = number(3).map_err(|_| "weight is not a whole number")?;
        let code: i32 = text(4).parse().map_err(|_| "exit_code is not a whole number")?;
        if end < start {
            return Err("end_ns is before start_ns");
        }
        self.ended.push((end, weight));
        if code == 0 {
            *self.done.entry(record[5].to_vec()).or_default() += 1;
        } else {
            self.failed.push(weight);
        }
        Ok(())
    }

    /// Whether this input has ended well, once for each time that it is asked.
    pub(crate) fn take_done(&mut self, input: &[u8]) -> bool {
        match self.done.get_mut(input) {
            Some(times) if *times > 0 => {
                *times -= 1;
                true
            }
            _ => false,
        }
    }

    /// What the windows must hold when a run begins at `begin_ns`: how long ago each task ended,
    /// and its weight.
    ///
    /// The log has no row of what was running when a run was killed. That was at most `concurrency`
    /// tasks, out of the first that have not ended well (`next`, weights) and, where tasks are tried
    /// again, of the last that failed. As many of them, the heaviest, count as having run until now.
    pub(crate) fn history(
        &self,
        begin_ns: u64,
        concurrency: usize,
        next: &[u64],
        retries: bool,
    ) -> Vec<(Duration, u64)> {
        let ago = |end: u64| Duration::from_nanos(begin_ns.saturating_sub(end));
        let mut history: Vec<_> =
            self.ended.iter().map(|(end, weight)| (ago(*end), *weight)).collect();
        if !self.ended.is_empty() {
            let failed = if retries { &self.failed[..] } else { &[] };
            let mut may_have_run: Vec<u64> = next.iter().take(concurrency).copied().collect();
            may_have_run.extend(failed.iter().rev().take(concurrency));
            may_have_run.sort_unstable_by(|a, b| b.cmp(a));
            let cut_off = may_have_run.into_iter().take(concurrency);
            history.extend(cut_off.map(|weight| (Duration::ZERO, weight)));
        }
        history
    }
}

fn write_row<F: AsRef<[u8]>>(
    file: &mut File,
    fields: impl IntoIterator<Item = F>,
) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(vec![]);
    writer.write_record(fields)?;
    let row = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    // One call for the whole row: whoever reads the file sees all of it or none.
    file.write_all(&row)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn malformed(line: u64, what: impl Into<String>) -> LogError {
    LogError::Malformed { line, what: what.into() }
}

fn csv_error(line: u64, error: &csv::Error) -> LogError {
    malformed(line, error.to_string())
}

/// Keeps in mind whether what was read so far ends a row: with a line end, outside of quotes.
struct Recorder<R> {
    input: R,
    at: At,
}

/// Where in a row the reading stands, by the rules of CSV: a quote opens only where a field begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    RowStart,
    FieldStart,
    Field,
    Quoted,
    /// After a quote in a quoted field: its end, or half of a quote that is part of it.
    QuoteInQuoted,
}

impl At {
    fn next(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Quoted, b'"') => Self::QuoteInQuoted,
            (Self::Quoted, _) | (Self::RowStart | Self::FieldStart | Self::QuoteInQuoted, b'"') => {
                Self::Quoted
            }
            (_, b'\n' | b'\r') => Self::RowStart,
            (_, b',') => Self::FieldStart,
            _ => Self::Field,
        }
    }
}

impl<R> Recorder<R> {
    fn new(input: R) -> Self {
        Self { input, at: At::RowStart }
    }

    fn ends_whole(&self) -> bool {
        self.at == At::RowStart
    }
}

impl<R: io::Read> io::Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.at = buffer[..length].iter().fold(self.at, |at, byte| at.next(*byte));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "seq,start_ns,end_ns,weight,exit_code,input\n\
        1,100,200,1,0,plain\n\
        2,300,400,5,7,\"two\nlines, and a \"\" quote\"\n\
        3,500,600,1,0,plain\n";

    fn read(log: &str) -> Result<(Past, u64), String> {
        Past::read(log.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_ended_well_is_done_as_often_as_it_did() {
        let (mut past, whole) = read(LOG).unwrap();
        assert_eq!(whole, LOG.len() as u64);
        assert_eq!(past.ended, [(200, 1), (400, 5), (600, 1)]);
        assert_eq!(past.failed, [5]);
        let done = [past.take_done(b"plain"), past.take_done(b"plain"), past.take_done(b"plain")];
        assert_eq!(done, [true, true, false]);
    }

    #[test]
    fn a_log_cut_off_anywhere_reads_as_the_rows_that_are_whole() {
        let ends = [0, 43, 63, 105, LOG.len()];
        for cut in 0..=LOG.len() {
            let (past, whole) = read(&LOG[..cut]).unwrap_or_else(|error| panic!("{cut}: {error}"));
            let expected = *ends.iter().rfind(|end| **end <= cut).unwrap();
            assert_eq!(usize::try_from(whole).unwrap(), expected, "cut at {cut}");
            assert_eq!(
                past.ended.len(),
                ends[1..].iter().filter(|end| **end <= cut).count().saturating_sub(1)
            );
        }
    }

    #[test]
    fn a_quote_inside_of_a_plain_field_opens_nothing() {
        let log = format!("{LOG}4,700,800,1,0,5\" disk\n");
        assert_eq!(read(&log).unwrap().1, log.len() as u64);
        let more = format!("{log}5,900,950,1,0,plain\n");
        let (past, whole) = read(&more).unwrap();
        assert_eq!((past.ended.len(), whole), (5, more.len() as u64), "no finished row is lost");
    }

    #[test]
    fn a_malformed_row_is_named_by_its_line() {
        let cases = [
            ("something else\n", "line 1: this is not the header of a log"),
            ("1,2,3\n", "line 2: a row has six fields"),
            ("1,x,3,1,0,a\n", "line 2: start_ns is not a whole number"),
            ("1,9,3,1,0,a\n", "line 2: end_ns is before start_ns"),
            ("1,2,3,1,zero,a\n", "line 2: exit_code is not"),
        ];
        for (row, words) in cases {
            let header = if words.starts_with("line 1") { "" } else { &LOG[..43] };
            let error = read(&format!("{header}{row}{}", &LOG[43..])).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_may_have_been_running_counts_as_having_run_until_now() {
        let (past, _) = read(LOG).unwrap();
        let ns = Duration::from_nanos;
        let ended = [(ns(800), 1), (ns(600), 5), (ns(400), 1)];
        let one = past.history(1_000, 1, &[2, 3], false);
        assert_eq!(one, [&ended[..], &[(ns(0), 2)]].concat());
        let two = past.history(1_000, 2, &[2, 3, 9], true);
        assert_eq!(two, [&ended[..], &[(ns(0), 5), (ns(0), 3)]].concat());
        let future = past.history(0, 1, &[], false);
        assert_eq!(future, [(ns(0), 1), (ns(0), 5), (ns(0), 1)], "a clock set back: held in full");
        assert_eq!(Past::default().history(1_000, 3, &[1, 1, 1], true), [], "nothing ran before");
    }
}
