//! The real binary, run in a folder of its own.

#![allow(dead_code, reason = "not every test file needs all of it")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use strict_rate_limiter_core::{Limit, Record, audit};
use tempfile::TempDir;

/// A limit that nothing waits for.
pub(crate) const FREE: &str = "1000000/1s";

/// The first line of a log.
pub(crate) const HEADER: &str = "seq,start_ns,end_ns,weight,exit_code,input\n";

pub(crate) fn now_ns() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since_epoch.as_nanos()).unwrap()
}

pub(crate) struct Folder(TempDir);

/// What a run printed and returned.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

/// A row of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) seq: u64,
    pub(crate) record: Record,
    pub(crate) exit_code: i32,
    pub(crate) input: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), content).unwrap();
        self
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// `ratelimit run …`, not started, in the folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.subcommand("run", arguments)
    }

    /// `ratelimit SUBCOMMAND …`, not started, in the folder.
    pub(crate) fn subcommand(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ratelimit"));
        command.arg(name).args(arguments).current_dir(&self.0);
        command.env("XDG_STATE_HOME", self.path("state-home"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, input: &[u8], arguments: &[&str]) -> Child {
        let mut child = self.command(arguments).spawn().unwrap();
        // A run that refuses its arguments does not read its input.
        let _ = child.stdin.take().unwrap().write_all(input);
        child
    }

    pub(crate) fn run(&self, input: impl AsRef<[u8]>, arguments: &[&str]) -> Ran {
        end(self.start(input.as_ref(), arguments))
    }

    /// A shell script, not started, in the folder; `$R` is the command.
    pub(crate) fn script(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&self.0).env("R", env!("CARGO_BIN_EXE_ratelimit"));
        command.env("XDG_STATE_HOME", self.path("state-home"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a shell script to its end.
    pub(crate) fn sh(&self, script: &str) -> Ran {
        end(self.script(script).spawn().unwrap())
    }

    pub(crate) fn log(&self, name: &str) -> Vec<Row> {
        rows(&self.path(name))
    }

    /// Waits until something has come true, which nothing but the run itself can bring about. A minute
    /// without it is taken for never.
    pub(crate) fn wait_until(&self, come_true: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !come_true(self) {
            assert!(begin.elapsed() < Duration::from_secs(60), "it never comes true");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

pub(crate) fn end(child: Child) -> Ran {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { out: text(stdout), err: text(stderr), code: status.code() }
}

fn rows(path: &Path) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    assert_eq!(
        reader.headers().unwrap().iter().collect::<Vec<_>>().join(","),
        "seq,start_ns,end_ns,weight,exit_code,input"
    );
    let rows = reader.records().map(|record| {
        let record = record.unwrap();
        let number = |field: usize| record[field].parse::<u64>().unwrap();
        Row {
            seq: number(0),
            record: Record { start: number(1), end: number(2), weight: number(3) },
            exit_code: record[4].parse().unwrap(),
            input: record[5].to_owned(),
        }
    });
    rows.collect()
}

/// Holds a log against the limits that it was written under.
pub(crate) fn assert_clean(rows: &[Row], limits: &[&str]) {
    let records: Vec<Record> = rows.iter().map(|row| row.record).collect();
    for limit in limits {
        let limit: Limit = limit.parse().unwrap();
        let audit = audit::check(&limit, &records).unwrap();
        assert!(audit.is_clean(), "{audit:?}");
    }
}

/// The most tasks that ran at any one time.
pub(crate) fn most_at_once(rows: &[Row]) -> usize {
    let starts = rows.iter().map(|row| row.record.start);
    let runs = |row: &Row, at| (row.record.start..row.record.end).contains(&at);
    starts.map(|at| rows.iter().filter(|row| runs(row, at)).count()).max().unwrap_or(0)
}

/// The time from the end of each task to the start of the next.
pub(crate) fn gaps(rows: &[Row]) -> Vec<Duration> {
    let gap = |pair: &[Row]| Duration::from_nanos(pair[1].record.start - pair[0].record.end);
    rows.windows(2).map(gap).collect()
}
