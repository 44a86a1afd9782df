//! Writes the log: one row for each task, when the task ends. `history.rs` reads it back.
//!
//! The columns are `seq,start_ns,end_ns,weight,exit_code,input`, times in nanoseconds since the Unix epoch. The
//! times come from the monotonic clock, which is matched with the wall clock once when the run begins. So they
//! never jump within a run, and a later run can compare them with its own.
//!
//! The file always ends with a whole row. If a write fails part-way, the part is cut off and the row is kept for
//! the next try. If it cannot be cut off, nothing more is written. A file that is not a log is never changed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, LogError};
use crate::history::{HEADER, History};
use crate::nanos::nanos;

/// A killed run may have left a child between fork and exec. It holds the lock until it execs.
const LOCK_TRIES: u32 = 100;

const LOCK_TRIED_EVERY: Duration = Duration::from_millis(10);

/// The log, open for writing and locked by this run.
#[derive(Debug)]
pub(crate) struct Log {
    rows: RowWriter<File>,
    /// The length of the whole rows, in bytes.
    whole: u64,
    begin: Instant,
    begin_ns: u64,
}

/// A task that ended.
#[derive(Debug)]
pub(crate) struct LogRow<'a> {
    pub(crate) seq: u64,
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    pub(crate) weight: u64,
    pub(crate) exit_code: i32,
    pub(crate) input: &'a [u8],
}

impl Log {
    /// Opens a new log, or one to resume. Writes nothing yet.
    pub(crate) fn open(path: &Path, resume: bool) -> Result<(Self, History), Error> {
        Self::try_open(path, resume).map_err(|error| Error::Log { path: path.to_owned(), error })
    }

    fn try_open(path: &Path, resume: bool) -> Result<(Self, History), LogError> {
        // Rows are appended: another writer can neither make us overwrite rows nor leave a gap behind the end.
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        lock(|| file.try_lock(), thread::sleep)?;
        survive_size_limits()?;
        let (mut history, mut whole) = (History::default(), 0);
        if file.metadata()?.len() > 0 {
            if !resume {
                return Err(LogError::Exists);
            }
            (history, whole) = History::read(BufReader::new(&file))?;
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let begin_ns = nanos(since_epoch.unwrap_or_default());
        let rows = RowWriter { file, waiting: vec![], torn: false };
        Ok((Self { rows, whole, begin: Instant::now(), begin_ns }, history))
    }

    /// Prepares the file for rows: cuts off a torn end and writes the header if there is none.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        if self.rows.file.metadata()?.len() > self.whole {
            self.rows.file.set_len(self.whole)?;
        }
        if self.whole == 0 {
            self.rows.write(&encode(HEADER)?)?;
        }
        Ok(())
    }

    /// Writes a whole row, after those that failed before.
    pub(crate) fn write(&mut self, row: &LogRow<'_>) -> io::Result<()> {
        let ns = |instant: Instant| self.begin_ns + nanos(instant - self.begin);
        let numbers = [row.seq, ns(row.start), ns(row.end), row.weight].map(|n| n.to_string());
        let exit_code = row.exit_code.to_string();
        let fields = numbers.iter().map(String::as_bytes).chain([exit_code.as_bytes(), row.input]);
        let row = encode(fields)?;
        self.rows.write(&row)
    }

    /// Nanoseconds since the epoch, by the clock of the log.
    pub(crate) fn now_ns(&self) -> u64 {
        self.begin_ns + nanos(self.begin.elapsed())
    }
}

/// Makes a write over the file size limit an error, instead of a signal (SIGXFSZ) that kills this process.
fn survive_size_limits() -> io::Result<()> {
    // A handled signal does not kill. Commands get the default action back.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

impl Drop for Log {
    /// Tries once more to write rows that failed: the disk may have space again.
    fn drop(&mut self) {
        let _ = self.rows.write(&[]);
    }
}

/// Takes the lock. Tries for about a second if another process holds it.
fn lock(
    mut take: impl FnMut() -> Result<(), TryLockError>,
    mut pause: impl FnMut(Duration),
) -> Result<(), LogError> {
    let mut tries = 0;
    loop {
        match take() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(LogError::Io(error)),
            Err(TryLockError::WouldBlock) if tries == LOCK_TRIES => return Err(LogError::InUse),
            Err(TryLockError::WouldBlock) => pause(LOCK_TRIED_EVERY),
        }
        tries += 1;
    }
}

/// Appends rows to a file, each whole or not at all.
#[derive(Debug)]
struct RowWriter<F> {
    file: F,
    /// Rows that could not be written yet.
    waiting: Vec<u8>,
    /// The file ends with a part of a row that could not be cut off.
    torn: bool,
}

/// A file that can be appended to and cut.
trait Append: Write {
    fn length(&self) -> io::Result<u64>;
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Append for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

impl<F: Append> RowWriter<F> {
    fn write(&mut self, row: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(row);
        if self.waiting.is_empty() {
            return Ok(());
        }
        if self.torn {
            return Err(io::Error::other("a row was written in part and cannot be cut off again"));
        }
        let before = self.file.length()?;
        // One call for the whole row, so that readers see all of it or none.
        match self.file.write_all(&self.waiting) {
            Ok(()) => {
                self.waiting.clear();
                Ok(())
            }
            Err(error) => {
                let is_whole = |length| length == before;
                if !self.file.length().is_ok_and(is_whole) {
                    self.torn = self.file.cut(before).is_err();
                }
                Err(error)
            }
        }
    }
}

fn encode<F: AsRef<[u8]>>(fields: impl IntoIterator<Item = F>) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(vec![]);
    writer.write_record(fields)?;
    writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file on a disk of limited size, on which cutting can fail as well.
    #[derive(Default)]
    struct Disk {
        content: Vec<u8>,
        room: usize,
        cut_fails: bool,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = self.room.saturating_sub(self.content.len()).min(bytes.len());
            self.content.extend_from_slice(&bytes[..fits]);
            if fits == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(fits) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Append for Disk {
        fn length(&self) -> io::Result<u64> {
            Ok(self.content.len() as u64)
        }

        fn cut(&mut self, length: u64) -> io::Result<()> {
            if self.cut_fails {
                return Err(io::ErrorKind::Other.into());
            }
            self.content.truncate(usize::try_from(length).unwrap());
            Ok(())
        }
    }

    fn rows(room: usize, cut_fails: bool) -> RowWriter<Disk> {
        let file = Disk { room, cut_fails, ..Disk::default() };
        RowWriter { file, waiting: vec![], torn: false }
    }

    #[test]
    fn whatever_room_there_is_the_file_holds_whole_rows_and_none_is_lost_once_there_is_room() {
        for room in 0..20 {
            let mut rows = rows(room, false);
            for row in ["1,one\n", "2,two\n", "3,three\n"] {
                let written = rows.write(row.as_bytes());
                let content = str::from_utf8(&rows.file.content).unwrap();
                assert!(content.is_empty() || content.ends_with('\n'), "room {room}: {content}");
                assert_eq!(written.is_ok(), content.ends_with(row), "room {room}");
            }
            rows.file.room = 1_000;
            // As on drop: a try without a new row.
            rows.write(&[]).unwrap();
            rows.write(&[]).unwrap();
            assert_eq!(rows.file.content, b"1,one\n2,two\n3,three\n", "room {room}");
        }
    }

    #[test]
    fn behind_a_part_of_a_row_that_cannot_be_cut_off_nothing_is_written() {
        let mut rows = rows(8, true);
        rows.write(b"1,one\n").unwrap();
        assert!(rows.write(b"2,two\n").is_err());
        rows.file.room = 1_000;
        assert!(rows.write(b"3,three\n").is_err());
        assert_eq!(rows.file.content, b"1,one\n2,");
    }

    #[test]
    fn a_lock_that_is_held_for_less_than_a_second_is_waited_for() {
        let busy = || Err(TryLockError::WouldBlock);
        let (mut tries, mut slept) = (0, Duration::ZERO);
        let released = || {
            tries += 1;
            if tries > 90 { Ok(()) } else { busy() }
        };
        lock(released, |time| slept += time).unwrap();
        assert_eq!(slept, Duration::from_millis(900));
        let mut slept = Duration::ZERO;
        assert!(matches!(lock(busy, |time| slept += time), Err(LogError::InUse)));
        assert_eq!(slept, Duration::from_secs(1));
        let broken = || Err(TryLockError::Error(io::ErrorKind::Unsupported.into()));
        assert!(matches!(lock(broken, |_| panic!()), Err(LogError::Io(_))));
    }
}
