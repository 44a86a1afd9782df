//! `ratelimit audit`: reads a log and decides whether each limit was kept.

mod decimal;
mod log_columns;
mod log_reader;
mod report;
mod report_html;
mod resolution;
pub(crate) mod times;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use strict_rate_limiter::audit::Verdict;

use self::log_columns::LogTraits;
use self::log_reader::LogContents;
use self::report::Report;
use self::times::show;
use crate::args::AuditArgs;
use crate::error::{Error, exit};
use crate::status_line::is_drawn;
use crate::stdio;

/// Audits a log. Returns the exit code.
pub(crate) fn audit(args: &AuditArgs) -> Result<u8, Error> {
    check(args)?;
    let LogContents { mut records, torn, traits } = read(args)?;
    if records.is_empty() {
        return Err(Error::Audited { path: args.log.clone(), what: "it has no tasks".into() });
    }
    let report = Report::of(args, &records, torn, &traits);
    let to_stdout = [&args.chart, &args.html].into_iter().flatten().any(|path| is_stdout(path));
    if !args.quiet {
        for remark in remarks(&report, &traits) {
            stdio::tell(remark);
        }
        if to_stdout {
            stdio::write_message(&report.to_string());
        } else {
            stdio::output().write_all(report.to_string().as_bytes()).map_err(Error::Output)?;
        }
    }
    for record in &mut records {
        *record = traits.bounds.widest(record);
    }
    records.sort_unstable_by_key(|record| record.start);
    if let Some(path) = &args.chart {
        write(path, &report_html::chart(&report, &records))?;
    }
    if let Some(path) = &args.html {
        write(path, &report_html::html(&report, &records))?;
    }
    let any = |verdict| report.limits.iter().any(|checked| checked.verdict == verdict);
    Ok(if any(Verdict::Broken) {
        exit::OVERFLOW
    } else if any(Verdict::Undecided) {
        exit::UNDECIDED
    } else {
        0
    })
}

fn check(args: &AuditArgs) -> Result<(), Error> {
    let wrong = match (&args.start, &args.end, &args.duration) {
        (Some(_), Some(_), Some(_)) => {
            "--start, --end and --duration say one thing twice: leave one of them out"
        }
        (None, Some(_), None) => "--end needs --start or --duration: when did each task start?",
        (None, None, Some(_)) => "--duration needs --start or --end: when did each task run?",
        _ if [&args.chart, &args.html]
            .iter()
            .all(|path| path.as_deref().is_some_and(is_stdout)) =>
        {
            "only one of --chart and --html can go to standard output"
        }
        _ => return Ok(()),
    };
    Err(Error::Usage(wrong.into()))
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

fn write(path: &Path, text: &Result<String, String>) -> Result<(), Error> {
    let drawn = |what: String| Error::Drawn { path: path.to_owned(), what };
    let text = text.as_ref().map_err(|what| drawn(what.clone()))?;
    if is_stdout(path) {
        return stdio::output().write_all(text.as_bytes()).map_err(Error::Output);
    }
    std::fs::write(path, text).map_err(|error| drawn(error.to_string()))
}

/// The assumptions behind the report that the user should know.
fn remarks(report: &Report, traits: &LogTraits) -> Vec<String> {
    let all_kept = report.limits.iter().all(|checked| checked.verdict == Verdict::Kept);
    let mut remarks = vec![];
    if let Some(ambiguity) = &traits.ambiguity
        && report.ambiguity.is_none()
    {
        let either_way = if all_kept { "; kept either way" } else { "" };
        remarks.push(format!("{}{either_way}", ambiguity.why));
    }
    if let Some(longest_ns) = traits.whole_seconds_ns
        && !all_kept
    {
        remarks.push(format!(
            "durations were taken for seconds (the longest for {}): --duration-unit says otherwise",
            humantime::format_duration(Duration::from_nanos(longest_ns)),
        ));
    }
    // Before 1973, numbers are never taken for milliseconds.
    if report.begin_ns < 100_000_000 * 1_000_000_000 && traits.exactness.is_some() {
        remarks.push(format!(
            "times were taken for seconds, and the log begins at {}",
            show(report.begin_ns.into())
        ));
    }
    remarks
}

fn read(args: &AuditArgs) -> Result<LogContents, Error> {
    let unreadable = |error: io::Error| Error::Input { path: args.log.clone(), error };
    let bar = if is_drawn(args.quiet) {
        ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8))
    } else {
        ProgressBar::hidden()
    };
    let input: Box<dyn BufRead> = if args.log == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(&args.log).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?;
        if length.is_file() {
            bar.set_length(length.len());
            let style = "reading [{bar:30}] {percent}% ETA {eta}";
            let style = ProgressStyle::with_template(style).expect("a constant");
            bar.set_style(style.progress_chars("=> "));
        }
        Box::new(BufReader::with_capacity(1 << 16, file))
    };
    let read = log_reader::read(BufReader::with_capacity(1 << 16, bar.wrap_read(input)), args);
    bar.finish_and_clear();
    read.map_err(|what| Error::Audited { path: args.log.clone(), what })
}
