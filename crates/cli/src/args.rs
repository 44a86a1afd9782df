//! The arguments: what there is to say, and the help that explains it.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgGroup, Parser, Subcommand};
use clap_complete::Shell;
use strict_rate_limiter::{Limit, RateLimiter, RateLimiterBuilder};

use crate::audit::times::DurationUnit;
use crate::help::{
    AFTER_AUDIT_HELP, AFTER_HELP, AFTER_LONG_AUDIT_HELP, AFTER_LONG_HELP, AFTER_PIPE_HELP,
};

/// Run tasks under a limit that is never broken: a strict sliding window, counted from completion,
/// first in first out.
#[derive(Debug, Parser)]
#[command(name = "ratelimit", version, about, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// What was said; or what is wrong with it, or the help.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        Self::try_parse().map_err(|mut error| {
            let mut words = std::env::args_os().skip(1);
            let is_run = words.next().is_some_and(|word| word == "run");
            let divided = words.any(|word| word == "--");
            if error.kind() == ErrorKind::UnknownArgument && is_run && !divided {
                let tip = vec![format!("if it belongs to the command, {DIVIDE}").into()];
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tip));
            }
            error
        })
    }
}

const DIVIDE: &str = "put -- before the command: ratelimit run 10/1s -- curl -sS {}";

/// A limit, or what is wrong with it: it may be a command.
fn limit(text: &str) -> Result<Limit, String> {
    text.parse::<Limit>().map_err(|error| {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            error.to_string()
        } else {
            format!("{error}. If it begins a command, {DIVIDE}")
        }
    })
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<RunArgs>),
    Pipe(PipeArgs),
    Audit(AuditArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// The limits, as every subcommand that keeps them takes them
#[derive(Debug, clap::Args)]
pub(crate) struct LimitArgs {
    /// At most this many in any interval of this length: 10/1s, 500/1m, 100/250ms; with a w, units
    /// of weight: 90000w/1m. Several limits all hold
    #[arg(required = true, value_name = "LIMIT", value_parser = limit)]
    pub(crate) limits: Vec<Limit>,

    /// Spread tasks over the period instead of running them back to back
    #[arg(long, help_heading = "Limits")]
    pub(crate) paced: bool,

    /// How much faster than the other side's this clock may run, in parts per million
    #[arg(long, value_name = "PPM", default_value = "0", help_heading = "Limits")]
    pub(crate) clock_drift: u32,
}

impl LimitArgs {
    /// A limiter that keeps them, to be made.
    pub(crate) fn builder(&self) -> RateLimiterBuilder {
        let builder = RateLimiter::builder()
            .limits(self.limits.iter().copied())
            .clock_drift(self.clock_drift);
        if self.paced { builder.paced() } else { builder }
    }
}

/// Print the completions for a shell
///
/// For bash: ratelimit completions bash > ~/.local/share/bash-completion/completions/ratelimit
#[derive(Debug, Parser)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub(crate) shell: Shell,
}

/// Write the manual, a page for each subcommand
///
/// To read it: ratelimit man ~/.local/share/man/man1 && man ratelimit-run
#[derive(Debug, Parser)]
pub(crate) struct ManArgs {
    /// The folder to write to; it is made where there is none
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

/// Run a command once for each line of input, so that no interval of a limit's period ever holds
/// more tasks than its rate.
///
/// Items are read from standard input or --input, a line each (empty lines are passed over) or, with --csv,
/// a record each. In the command, {} stands for the item and {#} for its number; where neither the item nor
/// a part of it is mentioned, it is appended as the last argument. No shell is involved unless --shell
/// says so. One command runs at a time unless -j says otherwise, in the order of the items.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "a flag is a bool")]
#[command(
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP,
    group = ArgGroup::new("columns").args(["csv", "tsv"]),
)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,

    /// Read items from this file instead of standard input
    #[arg(short, long, value_name = "FILE", help_heading = "Input")]
    pub(crate) input: Option<PathBuf>,

    /// Items end with a NUL character, not with a line. Not for columns: a CSV record may hold line breaks
    /// in quotes
    #[arg(short = '0', long, conflicts_with_all = ["columns", "weight", "header"], help_heading = "Input")]
    pub(crate) null: bool,

    /// Leave out the carriage return at the end of each line, as lines from Windows have one
    #[arg(long, conflicts_with = "null", help_heading = "Input")]
    pub(crate) crlf: bool,

    /// Items are CSV records: {1}, {2}, … and {NAME} stand for their fields. A record may go over several lines
    #[arg(long, help_heading = "Input")]
    pub(crate) csv: bool,

    /// Items are records of fields between tabs
    #[arg(long, help_heading = "Input")]
    pub(crate) tsv: bool,

    /// The first record names the columns. Goes without saying where a column is asked for by name
    #[arg(long, help_heading = "Input")]
    pub(crate) header: bool,

    /// The column, by number or name, that holds each item's weight: a whole number, also as 5.0, 1e3
    /// or 1,000. The input is CSV (TSV with --tsv, or from a file named so)
    #[arg(long, value_name = "COLUMN", help_heading = "Input")]
    pub(crate) weight: Option<String>,

    /// What stands for the item in the command, instead of {}
    #[arg(short = 'I', long, value_name = "TEXT", default_value = "{}", help_heading = "Input")]
    pub(crate) replace: String,

    /// Hand the command to `sh -c`, items quoted. A placeholder inside of quotes of the command's own is refused
    #[arg(long, help_heading = "Input")]
    pub(crate) shell: bool,

    /// How many commands may run at once
    #[arg(short = 'j', long, value_name = "N", default_value = "1", help_heading = "Limits")]
    pub(crate) concurrency: NonZeroUsize,

    /// How long a command that died by a signal (whoever sent it), or that exits with 129 to 192 as shells do
    /// for one that did, still counts as running: its call may be on its way
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s", help_heading = "Limits")]
    pub(crate) abandon_grace: Duration,

    /// Kill a command that takes longer than this, with all that it started: 30s, 1m 30s. Without it, none is
    /// killed; 0 is refused
    #[arg(long, value_name = "TIME", value_parser = timeout, help_heading = "Failures")]
    pub(crate) timeout: Option<Duration>,

    /// Try a failed command again, up to this many times. Each try is a task under the limits
    #[arg(long, value_name = "N", default_value = "0", help_heading = "Failures")]
    pub(crate) retries: u32,

    /// Wait this long before the first retry, twice as long before each further one, and never
    /// longer than a minute (or this, if that is more)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s", help_heading = "Failures")]
    pub(crate) retry_delay: Duration,

    /// Start nothing more once a command has failed for good
    #[arg(long, help_heading = "Failures")]
    pub(crate) halt: bool,

    /// Put the item and a tab before each line of its output
    #[arg(long, help_heading = "Output")]
    pub(crate) tag: bool,

    /// Write a row for each task that ends, as CSV: its number, start, end, weight, exit code, input
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) log: Option<PathBuf>,

    /// Skip what the log says has ended well, and count what it says has run and what may have run beside it: a
    /// restart never bursts
    #[arg(long, requires = "log", help_heading = "Output")]
    pub(crate) resume: bool,

    /// Show the commands and run none
    #[arg(long, help_heading = "Output")]
    pub(crate) dry_run: bool,

    /// No progress bar and no summary
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,
}

/// Copy lines from standard input to standard output, so that no interval of a limit's period ever
/// holds more of them than its rate.
///
/// Each line is written at once when its turn has come, in order and unchanged. With --bytes, limits on
/// weight count bytes; a line longer than such a limit's rate goes out in pieces.
///
/// A line counts until it has been read, as far as the kernel tells: on Linux, of a pipe and of a Unix
/// socket, that its reader has read it; of a TCP socket, that the other system has received it. A reader
/// that stalls holds up the limit, and finds one line when it goes on, or as many as the limits allow
/// in a millisecond; one that only reads when this has ended may wait for ever. Where the kernel does not
/// tell (files, terminals, other systems), a line counts until it has been written. The last lines
/// are not waited for: this ends when all has been written.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_PIPE_HELP)]
pub(crate) struct PipeArgs {
    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    /// Limits on weight count bytes: 1000000w/1s
    #[arg(short, long, help_heading = "Input")]
    pub(crate) bytes: bool,

    /// Read from this file instead of standard input
    #[arg(short, long, value_name = "FILE", help_heading = "Input")]
    pub(crate) input: Option<PathBuf>,

    /// Lines end with a NUL character
    #[arg(short = '0', long, help_heading = "Input")]
    pub(crate) null: bool,

    /// No progress line and no summary
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,
}

/// A time that a command may take.
fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => {
            Err("it would kill every command at once; leave --timeout out for none".into())
        }
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

/// Say whether a log kept the limits: whether any interval of a limit's period could have held more
/// than its rate, wherever between its start and its end the other side counted each task.
///
/// Reads the logs of ratelimit run and of GNU parallel (--joblog) as they are, and any CSV, TSV or lines
/// of JSON where told which columns hold what: when each task started, when it ended, or one of the
/// two and how long it took. Times are ISO 8601 (with their offset from UTC) or seconds since the
/// Unix epoch; numbers may be milliseconds, microseconds or nanoseconds as well, which is told by
/// their size.
///
/// Times are as exact as they are written: one in whole seconds may have been anywhere in its second.
/// A limit is kept if no such moment breaks it, BROKEN if every one does; else it CANNOT BE TOLD.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_AUDIT_HELP, after_long_help = AFTER_LONG_AUDIT_HELP)]
pub(crate) struct AuditArgs {
    /// The log, or - for standard input
    #[arg(value_name = "LOG")]
    pub(crate) log: PathBuf,

    /// At most this many in any interval of this length: 10/1s, 500/1m, 100/250ms; with a w, units
    /// of weight: 90000w/1m
    #[arg(required = true, value_name = "LIMIT")]
    pub(crate) limits: Vec<Limit>,

    /// The column (or the field of JSON) that holds when each task started
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub(crate) start: Option<String>,

    /// The column that holds when each task ended, beside --start or --duration. Without --end and
    /// --duration, tasks ended as they started
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub(crate) end: Option<String>,

    /// The column that holds how long each task took, beside --start or --end. In seconds, or with a
    /// unit as in 12ms
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub(crate) duration: Option<String>,

    /// What durations without a unit of their own are in: s unless this says otherwise
    #[arg(long, value_name = "UNIT", requires = "duration", help_heading = "Columns")]
    pub(crate) duration_unit: Option<DurationUnit>,

    /// How exact the times are: 1s, 1ms. Without this, as exact as the finest of their column
    #[arg(long, value_name = "TIME", value_parser = resolution, help_heading = "Columns")]
    pub(crate) resolution: Option<Duration>,

    /// Believe --start and --end, even where the log looks as if it were the other
    #[arg(long, requires = "duration", help_heading = "Columns")]
    pub(crate) as_told: bool,

    /// The column that holds each task's weight; 1 without
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub(crate) weight: Option<String>,

    /// Draw how full the window could have been over time, as SVG. To - it goes to standard output,
    /// and the verdict to standard error; --html likewise
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) chart: Option<PathBuf>,

    /// Write a page with the chart, the worst windows and the longest waits
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) html: Option<PathBuf>,

    /// No progress bar, and nothing printed but errors: the exit code says it
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,
}

fn resolution(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("the finest is 1ns".into()),
        Ok(resolution) if resolution > Duration::from_secs(86_400) => {
            Err("the coarsest is 1d".into())
        }
        Ok(resolution) => Ok(resolution),
        Err(error) => Err(error.to_string()),
    }
}
