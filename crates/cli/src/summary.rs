//! The summary at the end of a run: counts, and the first failed items.

use std::fmt::Write;
use std::time::Duration;

use crate::display::shown;

/// The number of failed items that are listed.
const NAMED_MAX: usize = 10;

/// The number of items by how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// Malformed lines, and items that could never run.
    pub(crate) refused: u64,
    pub(crate) skipped: u64,
    pub(crate) retries: u64,
}

/// The first failed items, one line each.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<String>);

/// The items that a stopped run never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NeverStarted {
    Items(u64),
    /// The input was not read to its end, so there may be more.
    AtLeast(u64),
}

impl Counts {
    /// The number of items that have ended, in whatever way.
    pub(crate) fn done(&self) -> u64 {
        self.ok + self.failed + self.refused + self.skipped
    }
}

impl Failures {
    pub(crate) fn add(&mut self, line: u64, item: &[u8], code: i32) {
        if self.0.len() < NAMED_MAX {
            self.0.push(format!("line {line}, `{}`: exit code {code}", shown(item)));
        }
    }
}

/// The summary, in whole lines.
pub(crate) fn summary(
    counts: Counts,
    failures: &Failures,
    never_started: NeverStarted,
    took: Duration,
) -> String {
    let Counts { ok, failed, refused, skipped, retries } = counts;
    let seconds = took.as_secs_f64();
    let mut parts = vec![format!("{ok} ok"), format!("{failed} failed")];
    for (count, what) in [(retries, "retries"), (refused, "not run"), (skipped, "skipped")] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    match never_started {
        NeverStarted::Items(0) => {}
        NeverStarted::Items(count) => parts.push(format!("{count} never started")),
        NeverStarted::AtLeast(0) => parts.push("the rest of the input never read".into()),
        NeverStarted::AtLeast(count) => {
            parts.push(format!("{count} or more never started"));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for people, to a tenth")]
    let per_second = (ok + failed + retries) as f64 / seconds;
    let rate = if per_second.is_normal() { format!(" ({per_second:.1}/s)") } else { String::new() };
    let parts = parts.join(", ");
    let mut text = format!("ratelimit: {} tasks: {parts} in {seconds:.2} s{rate}\n", ok + failed);
    for failure in &failures.0 {
        let _ = writeln!(text, "ratelimit: failed: {failure}");
    }
    let unnamed = failed.saturating_sub(failures.0.len() as u64);
    if unnamed > 0 {
        let _ = writeln!(text, "ratelimit: failed: {unnamed} more (a --log names them all)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_summary_names_what_there_was_and_nothing_else() {
        let none = Failures::default();
        let counts = Counts { ok: 2, ..Counts::default() };
        let said = "ratelimit: 2 tasks: 2 ok, 0 failed in 1.00 s (2.0/s)\n";
        assert_eq!(summary(counts, &none, NeverStarted::Items(0), SECOND), said);
        let counts = Counts { ok: 1, failed: 0, refused: 3, skipped: 4, retries: 2 };
        let said = "ratelimit: 1 tasks: 1 ok, 0 failed, 2 retries, 3 not run, 4 skipped, 5 never \
            started in 1.00 s (3.0/s)\n";
        assert_eq!(summary(counts, &none, NeverStarted::Items(5), SECOND), said);
        for (never, words) in [
            (NeverStarted::AtLeast(0), ", the rest of the input never read in"),
            (NeverStarted::AtLeast(7), ", 7 or more never started in"),
            (NeverStarted::Items(0), "4 skipped in"),
        ] {
            assert!(summary(counts, &none, never, SECOND).contains(words), "{words}");
        }
    }

    #[test]
    fn the_first_failures_are_named_and_the_others_are_counted() {
        let mut failures = Failures::default();
        for line in 1..=12 {
            failures.add(line, b"item", 7);
        }
        let counts = Counts { failed: 12, ..Counts::default() };
        let text = summary(counts, &failures, NeverStarted::Items(0), SECOND);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 1 + 10 + 1);
        assert_eq!(lines[1], "ratelimit: failed: line 1, `item`: exit code 7");
        assert_eq!(lines[11], "ratelimit: failed: 2 more (a --log names them all)");
    }
}
