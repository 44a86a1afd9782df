//! Computes the verdicts, the fullest windows and the idle times of a log, and prints them.

use std::time::Duration;

use strict_rate_limiter::Limit;
use strict_rate_limiter::audit::{Audit, CoarseAudit, ErrorBounds, Record, Verdict, audit_coarse};

use super::log_columns::{Ambiguity, LogTraits};
use super::times::{show, show_length};
use crate::args::AuditArgs;
use crate::display::counted;

/// The results for a log.
pub(crate) struct Report {
    pub(crate) log: String,
    pub(crate) tasks: u64,
    /// The first start and the last end.
    pub(crate) begin_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) torn: bool,
    /// How exact the times are; `None` if they are exact.
    pub(crate) exactness: Option<String>,
    /// Why a verdict cannot be told although the times are exact enough.
    pub(crate) ambiguity: Option<String>,
    pub(crate) limits: Vec<LimitReport>,
    pub(crate) waits: Waits,
}

/// The results for one limit.
pub(crate) struct LimitReport {
    pub(crate) limit: Limit,
    pub(crate) audit: CoarseAudit,
    pub(crate) verdict: Verdict,
    /// The units used, divided by those of a full window in every period.
    pub(crate) utilisation: f64,
}

/// The idle times between the first start and the last end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) total_ns: u64,
    /// Each as (length, begin), longest first.
    pub(crate) all: Vec<(u64, u64)>,
}

impl Report {
    pub(crate) fn of(args: &AuditArgs, records: &[Record], torn: bool, traits: &LogTraits) -> Self {
        let begin_ns = records.iter().map(|record| record.start).min().unwrap_or_default();
        let end_ns = records.iter().map(|record| record.end.max(record.start)).max();
        let last_start = records.iter().map(|record| record.start).max().unwrap_or_default();
        let audit_of = |limit: &Limit, records: &[Record], bounds: &ErrorBounds| {
            let audit = audit_coarse(limit, records, bounds);
            audit.expect("no record that was read ends before it starts")
        };
        let mut ambiguous = None;
        let mut check = |limit: &Limit| {
            let audit = audit_of(limit, records, &traits.bounds);
            let mut verdict = audit.verdict();
            if let (Some(Ambiguity { why, bounds, other }), Verdict::Kept) =
                (&traits.ambiguity, verdict)
            {
                let others: Vec<Record> = records.iter().map(other).collect();
                if audit_of(limit, &others, bounds).verdict() != Verdict::Kept {
                    verdict = Verdict::Undecided;
                    ambiguous = Some(why.clone());
                }
            }
            let utilisation = utilisation(limit, records, last_start - begin_ns);
            LimitReport { limit: *limit, audit, verdict, utilisation }
        };
        let limits = args.limits.iter().map(&mut check).collect();
        Self {
            log: printable(&args.log.display().to_string()),
            tasks: records.len() as u64,
            begin_ns,
            end_ns: end_ns.unwrap_or_default(),
            torn,
            exactness: traits.exactness.clone(),
            ambiguity: ambiguous,
            limits,
            waits: waits(records),
        }
    }

    pub(crate) fn took(&self) -> Duration {
        Duration::from_nanos(self.end_ns - self.begin_ns)
    }

    pub(crate) fn tasks(&self) -> String {
        counted(self.tasks, "task")
    }
}

/// A name without characters that HTML and SVG forbid.
fn printable(name: &str) -> String {
    let is_text = |char: char| !char.is_control() && !matches!(char, '\u{fffe}' | '\u{ffff}');
    name.chars().map(|char| if is_text(char) { char } else { '\u{fffd}' }).collect()
}

/// The utilisation. The last window may begin just before the log ends; it counts as a whole one.
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

impl LimitReport {
    /// The units in the fullest window, or the range if the times are not exact enough.
    pub(crate) fn fullest(&self) -> String {
        let (least, most) = (self.audit.least, self.audit.most.worst.units);
        match self.audit.verdict() {
            _ if least == most => format!("{most}"),
            Verdict::Kept => format!("at most {most}"),
            Verdict::Broken | Verdict::Undecided => format!("between {least} and {most}"),
        }
    }
}

/// The name of a verdict, for display.
pub(crate) fn verdict_text(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Kept => "kept",
        Verdict::Broken => "broken",
        Verdict::Undecided => "cannot be told",
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let took = show_length(u128::from(self.end_ns - self.begin_ns));
        writeln!(f, "{} in {took}, from {}", self.tasks(), show(self.begin_ns.into()))?;
        if self.torn {
            writeln!(f, "(the last line is not whole, and left out)")?;
        }
        if let Some(exactness) = &self.exactness {
            writeln!(f, "({exactness})")?;
        }
        for checked in &self.limits {
            let LimitReport { limit, audit, verdict, utilisation } = checked;
            let Audit { starts, ends, worst, .. } = &audit.most;
            let begin = worst.begin;
            let loudly = match verdict {
                Verdict::Kept => verdict_text(*verdict).to_owned(),
                Verdict::Broken | Verdict::Undecided => verdict_text(*verdict).to_uppercase(),
            };
            writeln!(f, "{limit}: {loudly}")?;
            writeln!(f, "  fullest window  {} of {}", checked.fullest(), limit.rate())?;
            writeln!(
                f,
                "  where           {} to {}",
                show(begin),
                show(begin + i128::from(limit.per_ns()))
            )?;
            writeln!(f, "  by their starts {}, by their ends {}", starts.units, ends.units)?;
            writeln!(f, "  utilisation     {utilisation:.3}")?;
        }
        if let Some(ambiguity) = &self.ambiguity {
            writeln!(f, "cannot be told: {ambiguity}")?;
        } else if self.limits.iter().any(|checked| checked.verdict == Verdict::Undecided) {
            writeln!(
                f,
                "cannot be told: finer times would tell; if these are, --resolution says so"
            )?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_printable_whatever_is_in_it() {
        assert_eq!(
            printable("a\u{1}b\nc\u{7f}\u{ffff}<\u{e9}"),
            "a\u{fffd}b\u{fffd}c\u{fffd}\u{fffd}<\u{e9}"
        );
    }

    #[test]
    fn a_wait_is_when_nothing_runs() {
        let record = |start, end| Record { start, end, weight: 1 };
        // Two overlap, one is within another, one begins as another ends.
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
