//! The command line arguments, and their help.

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
use crate::shared::args::{ForgetArgs, SetArgs, SharedArgs, StatusArgs};

/// Run tasks under a limit that is never broken: a strict sliding window, counted from completion,
/// first in first out.
#[derive(Debug, Parser)]
#[command(name = "ratelimit", version, about, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Parses the arguments. Help and version are errors of clap as well.
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

/// Parses a limit. The error has a hint, since the text may be the command.
pub(crate) fn limit(text: &str) -> Result<Limit, String> {
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
    Status(StatusArgs),
    Set(SetArgs),
    Forget(ForgetArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// The limits, for every subcommand that keeps them
#[derive(Debug, clap::Args)]
pub(crate) struct LimitArgs {
    /// At most this many tasks in any interval of this length: 10/1s, 500/1m, 100/250ms. With a w, units
    /// of weight: 90000w/1m. If there are several, all of them hold. With --shared, limits that it has already may
    /// be left out
    #[arg(required_unless_present = "shared", value_name = "LIMIT", value_parser = limit)]
    pub(crate) limits: Vec<Limit>,

    /// Spread tasks over the period instead of running them back to back
    #[arg(long, help_heading = "Limits")]
    pub(crate) paced: bool,

    /// By how much this clock may run faster than the server's, in parts per million [default: 0]
    #[arg(long, value_name = "PPM", help_heading = "Limits")]
    pub(crate) clock_drift: Option<u32>,

    #[command(flatten)]
    pub(crate) shared: SharedArgs,
}

impl LimitArgs {
    /// The builder of a limiter with these limits, for this process alone.
    pub(crate) fn builder(&self) -> RateLimiterBuilder {
        let builder = RateLimiter::builder()
            .limits(self.limits.iter().copied())
            .clock_drift(self.clock_drift.unwrap_or(0));
        if self.paced { builder.paced() } else { builder }
    }
}

/// Print the completions for a shell
///
/// For bash: ratelimit completions bash > ~/.local/share/bash-completion/completions/ratelimit
#[derive(Debug, Parser)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

/// Write the manual pages, one for each subcommand
///
/// To read it: ratelimit man ~/.local/share/man/man1 && man ratelimit-run
#[derive(Debug, Parser)]
pub(crate) struct ManArgs {
    /// The folder to write to. It is created if it does not exist
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

/// Run a command once for each line of input, so that no interval of a limit's period ever holds
/// more tasks than its rate.
///
/// Reads items from standard input or --input: one for each line (empty lines are skipped) or, with --csv, for
/// each record. In the command, {} stands for the item and {#} for its number. If the command mentions neither
/// the item nor a part of it, the item is appended as the last argument. Without --shell, no shell is used.
/// Commands start in the order of the items, one at a time unless -j says otherwise.
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

    /// Items end with a NUL character instead of a line end. Not with columns: there, a CSV record may contain
    /// quoted line breaks
    #[arg(short = '0', long, conflicts_with_all = ["columns", "weight", "header"], help_heading = "Input")]
    pub(crate) null: bool,

    /// Remove the carriage return at the end of each line, as in files from Windows
    #[arg(long, conflicts_with = "null", help_heading = "Input")]
    pub(crate) crlf: bool,

    /// Items are CSV records: {1}, {2}, … and {NAME} stand for their fields. A record may span several lines
    #[arg(long, help_heading = "Input")]
    pub(crate) csv: bool,

    /// Items are lines of tab-separated fields
    #[arg(long, help_heading = "Input")]
    pub(crate) tsv: bool,

    /// The first record names the columns. This is the default if the command or --weight names a column
    #[arg(long, help_heading = "Input")]
    pub(crate) header: bool,

    /// The column, by number or name, with each item's weight: a whole number, also written as 5.0, 1e3
    /// or 1,000. Implies --csv, or --tsv for a file called *.tsv
    #[arg(long, value_name = "COLUMN", help_heading = "Input")]
    pub(crate) weight: Option<String>,

    /// The text that stands for the item in the command, instead of {}
    #[arg(short = 'I', long, value_name = "TEXT", default_value = "{}", help_heading = "Input")]
    pub(crate) replace: String,

    /// Run the command with `sh -c`, with items quoted. A placeholder inside of quotes is an error
    #[arg(long, help_heading = "Input")]
    pub(crate) shell: bool,

    /// The number of commands that this run may start at once. With --shared, no more than the shared limit allows
    /// to all runs together: 1, or the -j of the run that made it, until ratelimit set NAME -j N changes that
    #[arg(short = 'j', long, value_name = "N", default_value = "1", help_heading = "Limits")]
    pub(crate) concurrency: NonZeroUsize,

    /// A command that died by any signal still counts as running for this long, since its call may be on
    /// its way. The same holds for exit codes 129 to 192, with which shells report a signal [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Limits")]
    pub(crate) abandon_grace: Option<Duration>,

    /// Kill a command that takes longer than this, with all that it started: 30s, 1m 30s. Without this option
    /// no command is killed. 0 is an error
    #[arg(long, value_name = "TIME", value_parser = timeout, help_heading = "Failures")]
    pub(crate) timeout: Option<Duration>,

    /// Retry a failed command up to this many times. Each try is a task under the limits
    #[arg(long, value_name = "N", default_value = "0", help_heading = "Failures")]
    pub(crate) retries: u32,

    /// Wait this long before the first retry, and twice as long before each further one, up to a minute
    /// (or this time, if it is longer)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s", help_heading = "Failures")]
    pub(crate) retry_delay: Duration,

    /// Start nothing more once a command has failed in all its tries
    #[arg(long, help_heading = "Failures")]
    pub(crate) halt: bool,

    /// Prefix each line of output with the item and a tab
    #[arg(long, help_heading = "Output")]
    pub(crate) tag: bool,

    /// Write a CSV row for each task when it ends: its number, start, end, weight, exit code, input
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) log: Option<PathBuf>,

    /// Skip the items that succeeded according to the log, and count the tasks that ran, or may have run, under
    /// the limits: a restart never bursts. With --shared, the shared limit itself knows what ran under it
    #[arg(long, requires = "log", conflicts_with = "fresh", help_heading = "Output")]
    pub(crate) resume: bool,

    /// Print the commands and run none
    #[arg(long, help_heading = "Output")]
    pub(crate) dry_run: bool,

    /// No progress bar and no summary
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,
}

/// Copy lines from standard input to standard output, so that no interval of a limit's period ever
/// holds more of them than its rate.
///
/// Writes each line as soon as the limits allow, in order and unchanged. With --bytes, limits on weight
/// count bytes, and a line longer than such a limit's rate is written in pieces.
///
/// A line counts as running until the kernel reports that it was read. On Linux it does so for pipes and
/// Unix sockets; for TCP sockets it reports that the other system has received the line. If the reader
/// stalls, the output stalls too. When the reader goes on, it finds one line, or those that the limits
/// allow in a millisecond. A reader that waits for the end of the output before it reads may wait for ever.
/// For files, terminals and other systems, a line counts as running until it is written. The command ends
/// when all lines are written; it does not wait until the last ones are read.
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

/// Parses --timeout.
fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => {
            Err("it would kill every command at once; leave --timeout out for none".into())
        }
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

/// Check whether a log kept the limits. A limit is broken if some interval of its period could have held more
/// than its rate, wherever between its start and its end the server counted each task.
///
/// Reads the logs of ratelimit run and of GNU parallel (--joblog) without further options. For any other
/// CSV, TSV or lines of JSON, say which columns hold the start and the end of each task, or one of the
/// two and the duration. Times are ISO 8601 (with their offset from UTC) or seconds since the Unix epoch.
/// Numbers may also be milliseconds, microseconds or nanoseconds; their size tells the unit.
///
/// Times are as exact as they are written: a time in whole seconds may be anywhere in its second. The
/// verdict is kept if no reading of the times breaks the limit, BROKEN if every reading does, and else
/// CANNOT BE TOLD.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_AUDIT_HELP, after_long_help = AFTER_LONG_AUDIT_HELP)]
pub(crate) struct AuditArgs {
    /// The log, or - for standard input
    #[arg(value_name = "LOG")]
    pub(crate) log: PathBuf,

    /// At most this many tasks in any interval of this length: 10/1s, 500/1m, 100/250ms. With a w, units
    /// of weight: 90000w/1m
    #[arg(required = true, value_name = "LIMIT")]
    pub(crate) limits: Vec<Limit>,

    /// The column (or JSON field) with the start of each task
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub(crate) start: Option<String>,

    /// The column with the end of each task, together with --start or --duration. Without --end and
    /// --duration, tasks end when they start
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub(crate) end: Option<String>,

    /// The column with the duration of each task, together with --start or --end: in seconds, or with a
    /// unit as in 12ms
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub(crate) duration: Option<String>,

    /// The unit of durations that are written without one: s by default
    #[arg(long, value_name = "UNIT", requires = "duration", help_heading = "Columns")]
    pub(crate) duration_unit: Option<DurationUnit>,

    /// How exact the times are: 1s, 1ms. By default, as exact as the finest time of the column
    #[arg(long, value_name = "TIME", value_parser = resolution, help_heading = "Columns")]
    pub(crate) resolution: Option<Duration>,

    /// Trust --start and --end, even if the log looks as if they were the wrong way round
    #[arg(long, requires = "duration", help_heading = "Columns")]
    pub(crate) as_told: bool,

    /// The column with the weight of each task. By default each weighs 1
    #[arg(long, value_name = "COLUMN", help_heading = "Columns")]
    pub(crate) weight: Option<String>,

    /// Draw how full the window could have been over time, as SVG. With -, write it to standard output and
    /// the verdict to standard error
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) chart: Option<PathBuf>,

    /// Write an HTML page with the chart, the fullest windows and the longest waits. - as for --chart
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) html: Option<PathBuf>,

    /// Print nothing but errors: the exit code is the verdict
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
