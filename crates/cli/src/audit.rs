//! `ratelimit audit`: a log in, a verdict out.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use strict_rate_limiter::Limit;
use strict_rate_limiter::audit::{Audit, Record, audit as judge};

use crate::args::AuditArgs;
use crate::error::{Error, exit};
use crate::page;
use crate::progress::is_drawn;
use crate::records::{self, Records};
use crate::times::{show, show_length};

/// All that is said of a log.
pub(crate) struct Report {
    pub(crate) log: String,
    pub(crate) tasks: usize,
    /// The first start and the last end.
    pub(crate) begin_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) torn: bool,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) waits: Waits,
}

pub(crate) struct Verdict {
    pub(crate) audit: Audit,
    /// What was used, over a full window in every period.
    pub(crate) utilisation: f64,
}

/// When nothing ran, between the first start and the last end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) total_ns: u64,
    /// Each as (how long, since when), longest first.
    pub(crate) all: Vec<(u64, u64)>,
}

/// The exit code, or what prevented it.
pub(crate) fn audit(args: &AuditArgs) -> Result<u8, Error> {
    let Records { mut records, torn } = read(args)?;
    if records.is_empty() {
        return Err(Error::Audited { path: args.log.clone(), what: "no task is in it".into() });
    }
    let report = report(args, &records, torn);
    if !args.quiet {
        print!("{report}");
    }
    records.sort_unstable_by_key(|record| record.start);
    let write = |path: &Path, text: Result<String, String>| {
        let written = text.and_then(|text| std::fs::write(path, text).map_err(|e| e.to_string()));
        written.map_err(|what| Error::Drawn { path: path.to_owned(), what })
    };
    if let Some(path) = &args.chart {
        write(path, page::chart(&report, &records))?;
    }
    if let Some(path) = &args.html {
        write(path, page::html(&report, &records))?;
    }
    let kept = report.verdicts.iter().all(|verdict| verdict.audit.is_clean());
    Ok(if kept { 0 } else { exit::OVERFLOW })
}

fn read(args: &AuditArgs) -> Result<Records, Error> {
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
    let read = records::read(BufReader::with_capacity(1 << 16, bar.wrap_read(input)), args);
    bar.finish_and_clear();
    read.map_err(|what| Error::Audited { path: args.log.clone(), what })
}

fn report(args: &AuditArgs, records: &[Record], torn: bool) -> Report {
    let begin_ns = records.iter().map(|record| record.start).min().unwrap_or_default();
    let end_ns = records.iter().map(|record| record.end).max().unwrap_or_default();
    let last_start = records.iter().map(|record| record.start).max().unwrap_or_default();
    let verdict = |limit: &Limit| Verdict {
        audit: judge(limit, records).expect("no record that was read ends before it starts"),
        utilisation: utilisation(limit, records, last_start - begin_ns),
    };
    Report {
        log: args.log.display().to_string(),
        tasks: records.len(),
        begin_ns,
        end_ns,
        torn,
        verdicts: args.limits.iter().map(verdict).collect(),
        waits: waits(records),
    }
}

/// The last window to be filled may have been begun just before the log ends: it counts as whole.
#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn utilisation(limit: &Limit, records: &[Record], between_starts_ns: u64) -> f64 {
    let used: u128 = records.iter().map(|record| u128::from(limit.units(record.weight))).sum();
    let periods = between_starts_ns as f64 / limit.per_ns() as f64 + 1.0;
    used as f64 / (limit.rate() as f64 * periods)
}

fn waits(records: &[Record]) -> Waits {
    let mut spans: Vec<(u64, u64)> =
        records.iter().map(|record| (record.start, record.end)).collect();
    spans.sort_unstable();
    let mut waits = Waits::default();
    let mut busy_until = spans.first().map_or(0, |(start, _)| *start);
    for (start, end) in spans {
        if start > busy_until {
            waits.total_ns += start - busy_until;
            waits.all.push((start - busy_until, busy_until));
        }
        busy_until = busy_until.max(end);
    }
    waits.all.sort_unstable_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
    waits
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let took = show_length(u128::from(self.end_ns - self.begin_ns));
        writeln!(f, "{} tasks in {took}, from {}", self.tasks, show(self.begin_ns.into()))?;
        if self.torn {
            writeln!(f, "(the last line is not whole, and left out)")?;
        }
        for Verdict { audit, utilisation } in &self.verdicts {
            let Audit { limit, starts, ends, worst } = audit;
            let said = if audit.is_clean() { "kept" } else { "BROKEN" };
            let begin = worst.begin;
            writeln!(f, "{limit}: {said}")?;
            writeln!(f, "  fullest window  {} of {}", worst.units, limit.rate())?;
            writeln!(
                f,
                "  where           {} to {}",
                show(begin),
                show(begin + i128::from(limit.per_ns()))
            )?;
            writeln!(f, "  by their starts {}, by their ends {}", starts.units, ends.units)?;
            writeln!(f, "  utilisation     {utilisation:.3}")?;
        }
        let Waits { total_ns, all } = &self.waits;
        match all.first() {
            None => writeln!(f, "waits: none"),
            Some((longest, since)) => writeln!(
                f,
                "waits: {}, {} in all; median {}, longest {} from {}",
                all.len(),
                show_length((*total_ns).into()),
                show_length(all[all.len() / 2].0.into()),
                show_length((*longest).into()),
                show((*since).into()),
            ),
        }
    }
}

impl Report {
    pub(crate) fn took(&self) -> Duration {
        Duration::from_nanos(self.end_ns - self.begin_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_when_nothing_runs() {
        let record = |start, end| Record { start, end, weight: 1 };
        // Two overlap, one lies within, one begins as another ends.
        let records =
            [record(100, 110), record(0, 50), record(40, 70), record(45, 60), record(70, 80)];
        assert_eq!(waits(&records), Waits { total_ns: 20, all: vec![(20, 80)] });
        assert_eq!(waits(&records[..1]), Waits::default());
    }

    #[test]
    fn a_full_window_in_every_period_is_a_utilisation_of_one() {
        let limit: Limit = "2/100ns".parse().unwrap();
        let at = |at| Record { start: at, end: at, weight: 9 };
        let records = [at(0), at(0), at(100), at(100)];
        assert!((utilisation(&limit, &records, 100) - 1.0).abs() < 1e-9);
    }
}
