//! Reads the log of earlier runs, and computes how much of the limits they may have used.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use crate::error::LogError;
use crate::tail_reader::TailReader;

/// The header of a log.
pub(crate) const HEADER: [&str; 6] = ["seq", "start_ns", "end_ns", "weight", "exit_code", "input"];

/// The contents of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// Whether an earlier run began. It may have been killed while tasks ran.
    began: bool,
    /// How often each input has succeeded, less the calls of [`Self::take_done`].
    done: HashMap<Vec<u8>, u64>,
    /// The inputs with a row of a failed task.
    failed: HashSet<Vec<u8>>,
    /// Tasks that ended: the end in nanoseconds since the epoch, and the weight.
    ended: Vec<(u64, u64)>,
    /// The same for tasks that may have been killed. Their calls may have gone on for the grace.
    killed: Vec<(u64, u64)>,
    /// The weights of failed tasks, in the order of their ends.
    failed_weights: Vec<u64>,
}

/// Whether a task with this exit code may have been killed: by --timeout (124), by a signal (129 to 192), or for a
/// reason that we could not learn (126).
fn may_be_killed(code: i32) -> bool {
    matches!(code, 124 | 126 | 129..=192)
}

impl History {
    /// Reads a log. Also returns the length of its whole rows in bytes: a killed run may have left a part of a row
    /// at the end, which is skipped.
    pub(crate) fn read(input: impl io::Read) -> Result<(Self, u64), LogError> {
        let mut history = Self::default();
        let mut reader = csv::ReaderBuilder::new();
        let mut reader =
            reader.has_headers(false).flexible(true).from_reader(TailReader::new(input));
        let mut whole = 0;
        // A record is whole if another follows it, or if the log ends with the end of a row.
        let mut last: Option<(u64, csv::ByteRecord)> = None;
        loop {
            let (line, begins) = (reader.position().line(), reader.position().byte());
            let mut record = csv::ByteRecord::new();
            let more =
                reader.read_byte_record(&mut record).map_err(|error| csv_error(line, &error))?;
            if !more && !reader.get_ref().ends_row() {
                // A file without a whole row must be a torn header.
                if whole == 0 && !begins_a_header(reader.get_ref().begin()) {
                    return Err(malformed(1, NO_HEADER));
                }
                history.began = true;
                return Ok((history, whole));
            }
            if let Some((line, record)) = last {
                if whole > 0 {
                    history.add(&record).map_err(|what| malformed(line, what))?;
                } else if record != HEADER[..] {
                    return Err(malformed(line, NO_HEADER));
                }
                history.began = true;
                whole = begins;
            }
            if !more {
                // A file of empty lines is not a log.
                let is_empty = reader.get_ref().begin().is_empty();
                return if whole > 0 || is_empty {
                    Ok((history, whole))
                } else {
                    Err(malformed(1, NO_HEADER))
                };
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
        let list = if may_be_killed(code) { &mut self.killed } else { &mut self.ended };
        list.push((end, weight));
        if code == 0 {
            *self.done.entry(record[5].to_vec()).or_default() += 1;
        } else {
            self.failed_weights.push(weight);
            self.failed.insert(record[5].to_vec());
        }
        Ok(())
    }

    /// Whether this input has succeeded. Each success answers `true` once.
    pub(crate) fn take_done(&mut self, input: &[u8]) -> bool {
        match self.done.get_mut(input) {
            Some(times) if *times > 0 => {
                *times -= 1;
                true
            }
            _ => false,
        }
    }

    /// Whether an earlier run began, so that some of its tasks may have no row.
    pub(crate) fn began(&self) -> bool {
        self.began
    }

    /// Whether any row has this input.
    pub(crate) fn knows(&self, input: &[u8]) -> bool {
        self.done.contains_key(input) || self.failed.contains(input)
    }

    /// The time from `now_ns` until the grace of every possibly killed task is over.
    pub(crate) fn grace_left(&self, now_ns: u64, grace: Duration) -> Duration {
        let over = |end: u64| Duration::from_nanos(end).saturating_add(grace);
        let last = self.killed.iter().map(|(end, _)| over(*end)).max().unwrap_or_default();
        // At most the grace, in case the clock was set back.
        last.saturating_sub(Duration::from_nanos(now_ns)).min(grace)
    }

    /// The tasks with a row, as the windows must count them: how long before `now_ns` each ended, and its weight.
    pub(crate) fn ended(&self, now_ns: u64, grace: Duration) -> Vec<(Duration, u64)> {
        let ago = |end: u64| Duration::from_nanos(now_ns.saturating_sub(end));
        let ended = self.ended.iter().map(|(end, weight)| (ago(*end), *weight));
        let killed =
            self.killed.iter().map(|(end, weight)| (ago(*end).saturating_sub(grace), *weight));
        ended.chain(killed).collect()
    }

    /// The weights of the tasks that may have been running when an earlier run was killed.
    ///
    /// The log does not say which tasks were running, so the `concurrency` heaviest candidates are counted:
    /// the next items (`next`), `unseen` items that are not read yet, each of weight `unknown`, and the last
    /// failed tasks, which may have been tried again.
    pub(crate) fn in_flight(
        &self,
        concurrency: usize,
        next: &[u64],
        unseen: usize,
        unknown: u64,
    ) -> Vec<u64> {
        if !self.began {
            return vec![];
        }
        let failed = self.failed_weights.iter().rev().take(concurrency);
        let mut may_have_run: Vec<u64> = next.iter().chain(failed).copied().collect();
        may_have_run.extend(std::iter::repeat_n(unknown, unseen));
        may_have_run.sort_unstable_by(|a, b| b.cmp(a));
        may_have_run.truncate(concurrency);
        may_have_run
    }
}

const NO_HEADER: &str = "this is not the header of a log";

fn malformed(line: u64, what: impl Into<String>) -> LogError {
    LogError::Malformed { line, what: what.into() }
}

fn csv_error(line: u64, error: &csv::Error) -> LogError {
    malformed(line, error.to_string())
}

/// Whether a file that begins so, and has no whole row, can be a torn header.
fn begins_a_header(begin: &[u8]) -> bool {
    HEADER.join(",").as_bytes().starts_with(begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "seq,start_ns,end_ns,weight,exit_code,input\n\
        1,100,200,1,0,plain\n\
        2,300,400,5,7,\"two\nlines, and a \"\" quote\"\n\
        3,500,600,1,0,plain\n";

    fn read(log: &str) -> Result<(History, u64), String> {
        History::read(log.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_ended_well_is_done_as_often_as_it_did() {
        let (mut history, whole) = read(LOG).unwrap();
        assert_eq!(whole, LOG.len() as u64);
        assert_eq!(history.ended, [(200, 1), (400, 5), (600, 1)]);
        assert_eq!(history.failed_weights, [5]);
        let done =
            [history.take_done(b"plain"), history.take_done(b"plain"), history.take_done(b"plain")];
        assert_eq!(done, [true, true, false]);
        let known = [&b"plain"[..], b"two\nlines, and a \" quote", b"other"];
        assert_eq!(known.map(|input| history.knows(input)), [true, true, false]);
    }

    #[test]
    fn a_log_cut_off_anywhere_reads_as_the_rows_that_are_whole_and_a_run_has_begun() {
        let ends = [0, 43, 63, 105, LOG.len()];
        for cut in 1..=LOG.len() {
            let (history, whole) =
                read(&LOG[..cut]).unwrap_or_else(|error| panic!("{cut}: {error}"));
            let expected = *ends.iter().rfind(|end| **end <= cut).unwrap();
            assert_eq!(usize::try_from(whole).unwrap(), expected, "cut at {cut}");
            assert_eq!(
                history.ended.len(),
                ends[1..].iter().filter(|end| **end <= cut).count().saturating_sub(1)
            );
            assert!(history.began(), "cut at {cut}");
        }
        assert_eq!(read("").unwrap(), (History::default(), 0), "nothing has begun");
    }

    #[test]
    fn a_file_that_is_no_log_is_refused_with_and_without_a_line_end() {
        let texts =
            ["important text", "x", "seq,start_ns,end", "\"an open quote", "sequence", "\0"];
        for text in texts {
            let prefix = HEADER.join(",").starts_with(text);
            assert_eq!(read(text).is_ok(), prefix, "{text:?}");
            assert!(read(&format!("{text}\n")).is_err(), "{text:?}");
            assert!(read(&format!("{text}\nmore")).is_err(), "{text:?}");
        }
        assert!(read(&"seq,".repeat(100)).is_err());
        assert!(read("\n\n").is_err());
    }

    #[test]
    fn a_quote_inside_of_a_plain_field_opens_nothing() {
        let log = format!("{LOG}4,700,800,1,0,5\" disk\n");
        assert_eq!(read(&log).unwrap().1, log.len() as u64);
        let more = format!("{log}5,900,950,1,0,plain\n");
        let (history, whole) = read(&more).unwrap();
        assert_eq!((history.ended.len(), whole), (5, more.len() as u64), "no finished row is lost");
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

    const fn ns(ns: u64) -> Duration {
        Duration::from_nanos(ns)
    }

    #[test]
    fn what_has_ended_is_held_since_then_and_what_was_killed_since_its_grace() {
        let (history, _) = read(&format!("{LOG}4,100,300,2,124,a\n5,100,900,3,137,b\n")).unwrap();
        let ended = [(ns(800), 1), (ns(600), 5), (ns(400), 1)];
        let without = history.ended(1_000, ns(0));
        assert_eq!(without, [&ended[..], &[(ns(700), 2), (ns(100), 3)]].concat());
        let with = history.ended(1_000, ns(500));
        assert_eq!(with, [&ended[..], &[(ns(200), 2), (ns(0), 3)]].concat());
        assert_eq!(history.grace_left(1_000, ns(500)), ns(400), "and that one's is not over");
        assert_eq!(history.grace_left(2_000, ns(500)), ns(0));
        assert_eq!(history.grace_left(0, ns(500)), ns(500), "a clock set back");
        assert_eq!(history.grace_left(1_000, ns(0)), ns(0));
        let set_back = history.ended(0, ns(0));
        assert!(set_back.iter().all(|(ago, _)| *ago == ns(0)), "a clock set back: held in full");
    }

    #[test]
    fn what_may_have_been_running_is_counted_at_its_heaviest() {
        let (history, _) = read(LOG).unwrap();
        let retried = history.in_flight(1, &[2, 3], 0, 1);
        assert_eq!(retried, [5], "the one that failed may have been tried again");
        assert_eq!(history.in_flight(2, &[2, 3, 9], 0, 1), [9, 5]);
        assert_eq!(history.in_flight(4, &[2], 3, 1), [5, 2, 1, 1], "there may have been four");
        assert_eq!(history.in_flight(3, &[2, 2, 2], 2, 100), [100, 100, 5]);
        let (header, _) = read(&LOG[..43]).unwrap();
        assert_eq!(header.in_flight(2, &[], 2, 1), [1, 1], "before the first row as well");
        assert!(History::default().in_flight(3, &[1], 2, 1).is_empty(), "nothing ran before");
    }
}
