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

    /// How long a command that was killed still counts as running: its call may be on its way
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s", help_heading = "Limits")]
    pub(crate) abandon_grace: Duration,

    /// Kill a command that takes longer than this: 30s, 1m 30s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Failures")]
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

const AFTER_PIPE_HELP: &str = "\
Examples:
  Ten lines a second to whatever reads them:
    tail -f access.log | ratelimit pipe 10/1s | ./notify
  At most 500 messages and a million bytes a second:
    ratelimit pipe 500/1s 1000000w/1s --bytes -i messages.jsonl | nc localhost 9000

What reads the output may hand it on to others: what they do with it, and when, cannot be counted.

Exit codes: 0 all well, 2 usage, 3 input or output, 141 whoever reads the output has gone";

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

const AFTER_AUDIT_HELP: &str = "\
Examples:
  A run of one's own, against the limits that it had:
    ratelimit audit fetched.csv 10/1s --html fetched.html
  What parallel made of it:
    parallel --joblog jobs -j8 fetch < urls.txt; ratelimit audit jobs 10/1s
  An access log of nginx in lines of JSON, whose times are when each request ENDED:
    ratelimit audit access.jsonl 500/1m --end msec --duration request_time

Exit codes: 0 every limit was kept, 1 one was not, 4 none is known to be broken, but the log's times do
not tell of all that they were kept, 2 usage, 3 the log could not be read or something not written, 141
whoever reads the output has gone";

const AFTER_LONG_AUDIT_HELP: &str = "\
Examples:
  A run of one's own, against the limits that it had:
    ratelimit audit fetched.csv 10/1s --html fetched.html
  What parallel made of it:
    parallel --joblog jobs -j8 fetch < urls.txt; ratelimit audit jobs 10/1s
  An access log of nginx in lines of JSON, whose times are when each request ENDED:
    ratelimit audit access.jsonl 500/1m --end msec --duration request_time

Start or end:
  Most servers write a request to the log when it has ended, but not all stamp it with that moment.
  Taken for the other, a broken log can seem kept.
    nginx    $msec, $time_iso8601        --end    $request_time        seconds
    Caddy    ts                          --end    duration             seconds
    Apache   %t, %{usec}t (received)     --start  %D                   --duration-unit us
             %{end:usec}t                --end    %D                   --duration-unit us
    Envoy    %START_TIME%                --start  %DURATION%           --duration-unit ms
    Traefik  StartUTC                    --start  Duration             --duration-unit ns
    HAProxy  %tr, %t (received)          --start  %Ta                  --duration-unit ms
  Where the order of the lines or the name of a column speaks for the other, and the verdict would be
  worse, it CANNOT BE TOLD; --as-told believes you.

Exit codes:
    0  every limit was kept
    1  at least one limit was not, however the log's times are read
    2  the arguments do not make sense
    3  the log could not be read, or the chart, the page or the verdict not written
    4  no limit is known to be broken, but the log's times do not tell of all that they were kept
  141  whoever reads the output has gone";

const AFTER_HELP: &str = "\
Example: seq 60 | ratelimit run 20/200ms -- echo {}
Exit codes: 0 all well, 1 a task failed, 2 usage, 3 input or log, 127 no such command, 130 interrupted,
141 whoever reads the output has gone
More with --help.";

const AFTER_LONG_HELP: &str = "\
Examples:
  Fetch every address in a file, ten a second at most, and keep a record:
    ratelimit run 10/1s --input urls.txt --log fetched.csv -- curl -sSfO {}

  Go on where a run was cut off, without a burst:
    ratelimit run 10/1s --input urls.txt --log fetched.csv --resume -- curl -sSfO {}

  500 requests and 90,000 tokens a minute, four at a time, three more tries for each:
    ratelimit run 500/1m 90000w/1m --input prompts.csv --weight tokens -j4 --retries 3 -- ask {prompt}

  A pipeline for each item:
    ls *.log | ratelimit run 5/1s --shell -- 'gzip -c {} | upload'

Placeholders:
  {}    the item              {.}   without its extension    {/}   without its folder
  {//}  its folder            {/.}  without both             {#}   its number, from 1
  With columns {1} and {name} are fields, and {1.}, {name/}, … parts of them; {.} and its
  like are those of every field, and {} is the record as it stands. A column asked for by
  name makes the first record the header. What cannot be meant as a placeholder is text, as
  in JSON and awk: {\"q\":\"x\"}, {print $1}; so are ${NAME} and, without columns, curl's
  %{name}. What can be and is none is refused before anything runs. {{ and }} are braces:
  {{name}} is passed on as {name}.
  With --shell write {} without quotes, never '{}' or \"{}\": an item is quoted already.

Input:
  A record is one item over all of its lines; one whose quote is never closed is not run,
  nor is anything of it. Lines that end in CR LF are told of once; --crlf takes the CR off
  (--csv and --tsv do by themselves). A byte order mark at the beginning is left out, except
  with -0.

Output:
  The output of each task is whole and in the order of the items, never interleaved. A progress bar
  is drawn where standard error is a terminal; a summary of one line ends every run.

Interrupting:
  Ctrl-C (or SIGTERM) once: nothing more is started, and what runs may end. Twice: what runs is
  killed. Commands run in process groups of their own, so Ctrl-C does not reach them directly, and
  with standard input empty. A run that is itself killed outright (SIGKILL) leaves its commands
  running; --resume counts as many as -j of them as having run until it began.

Exit codes:
    0  every task ended well
    1  at least one task failed, for good, or an item could not be run
    2  the arguments do not make sense
    3  the input could not be read, the log not read or written, or the output or a message not written
  127  there is no such command
  130  interrupted (143 by SIGTERM)
  141  whoever reads the output, or the messages, has gone

Log:
  seq,start_ns,end_ns,weight,exit_code,input; times in nanoseconds since the Unix epoch. A row is
  written as its task ends. exit_code is the command's own; 128 + N if signal N ended it, 124 if it took longer
  than --timeout, 126 or 127 if it could not be started. It holds whole rows even where the disk was full.

Resuming:
  A log has no row of what was running when its run was killed. As many as -j tasks count as
  having run until the resumed run begins, from the log's header on. Limits on tasks need no
  more, and the first item starts as soon as the windows allow. For limits on weight the
  weights of the first items that are still to be run count; until -j of those have been
  read, each that is missing counts as the heaviest that the limits allow, so an input that
  comes item by item may wait for up to a period. What was killed counts for --abandon-grace
  longer; nothing starts before that is over.";
