//! What a person sees of a run: a bar on a terminal, messages, and one line at the end.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::streams;

/// How far back the present rate looks.
const RATE_OVER: Duration = Duration::from_secs(10);

/// How often it takes a sample.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// How the items ended so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// Lines that are no items, and items that could never run.
    pub(crate) refused: u64,
    pub(crate) skipped: u64,
    pub(crate) retries: u64,
}

pub(crate) struct Progress {
    bar: ProgressBar,
    quiet: bool,
    begin: Instant,
    total: Option<u64>,
    rate: Rate,
    pub(crate) counts: Counts,
}

/// Tasks ended a second, over the last [`RATE_OVER`].
#[derive(Debug, Default)]
struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

/// Whether a run that is not quiet draws a bar.
pub(crate) fn is_drawn(quiet: bool) -> bool {
    !quiet && io::stderr().is_terminal()
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        let bar = if is_drawn(quiet) {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8))
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(style("{spinner} {pos} done{msg}"));
        bar.enable_steady_tick(Duration::from_millis(250));
        let begin = Instant::now();
        let mut rate = Rate::default();
        rate.sample(begin, 0);
        Self { bar, quiet, begin, total: None, rate, counts: Counts::default() }
    }

    /// Something has ended; `total` where it is known how many items there are.
    pub(crate) fn update(&mut self, total: Option<u64>) {
        if let Some(total) = total.filter(|_| self.total.is_none()) {
            self.total = Some(total);
            self.bar.set_length(total);
            self.bar.set_style(style("{bar:30} {pos}/{len} done{msg}"));
        }
        let Counts { ok, failed, refused, skipped, .. } = self.counts;
        let done = ok + failed + refused + skipped;
        self.bar.set_position(done);
        let now = Instant::now();
        self.rate.sample(now, ok + failed);
        let mut parts = vec![];
        if failed + refused > 0 {
            parts.push(format!(", {} failed", failed + refused));
        }
        if let Some(per_second) = self.rate.per_second(now, ok + failed) {
            parts.push(format!(", {per_second:.1}/s"));
            if let Some(total) = self.total {
                let left = seconds(total.saturating_sub(done), per_second);
                parts.push(format!(", {} left", HumanDuration(left)));
            }
        }
        self.bar.set_message(parts.concat());
    }

    /// Tells something, without harm to the bar.
    pub(crate) fn tell(&self, message: impl fmt::Display) {
        self.bar.suspend(|| streams::tell(message));
    }

    /// Does something that writes to the terminal, without harm to the bar.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Ends with the summary.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
        if !self.quiet {
            streams::tell(summary(self.counts, self.begin.elapsed()));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    style.progress_chars("=> ")
}

#[expect(clippy::cast_precision_loss, reason = "for people, to a second")]
fn seconds(tasks: u64, per_second: f64) -> Duration {
    Duration::try_from_secs_f64((tasks as f64 / per_second).round()).unwrap_or(Duration::MAX)
}

impl Rate {
    fn sample(&mut self, now: Instant, ended: u64) {
        if self.samples.back().is_none_or(|(last, _)| now - *last >= SAMPLE_EVERY) {
            self.samples.push_back((now, ended));
        }
        while self.samples.get(1).is_some_and(|(next, _)| now - *next >= RATE_OVER) {
            self.samples.pop_front();
        }
    }

    /// `None` before there is anything to say.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people, to a tenth")]
    fn per_second(&self, now: Instant, ended: u64) -> Option<f64> {
        let (since, before) = self.samples.front()?;
        let per_second = (ended - before) as f64 / (now - *since).as_secs_f64();
        per_second.is_normal().then_some(per_second)
    }
}

fn summary(counts: Counts, took: Duration) -> String {
    let Counts { ok, failed, refused, skipped, retries } = counts;
    let seconds = took.as_secs_f64();
    let mut parts = vec![format!("{ok} ok"), format!("{failed} failed")];
    for (count, what) in [(retries, "retries"), (refused, "not run"), (skipped, "skipped")] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for people, to a tenth")]
    let per_second = (ok + failed + retries) as f64 / seconds;
    let rate = if per_second.is_normal() { format!(" ({per_second:.1}/s)") } else { String::new() };
    format!("{} tasks: {} in {seconds:.2} s{rate}", ok + failed, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_ten_seconds() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut rate = Rate::default();
        rate.sample(begin, 0);
        assert_eq!(rate.per_second(begin, 0), None);
        // Ten a second for 20 s, then one a second for 20 s.
        for task in 1..=200 {
            rate.sample(at(100 * task), task);
        }
        assert_eq!(rate.per_second(at(20_000), 200), Some(10.0));
        for task in 1..=20 {
            rate.sample(at(20_000 + 1_000 * task), 200 + task);
        }
        assert_eq!(rate.per_second(at(40_000), 220), Some(1.0));
        assert!(rate.samples.len() < 120);
        assert_eq!(seconds(30, 2.0), Duration::from_secs(15));
    }

    #[test]
    fn the_summary_names_what_there_was_and_nothing_else() {
        let second = Duration::from_secs(1);
        let counts = Counts { ok: 2, ..Counts::default() };
        assert_eq!(summary(counts, second), "2 tasks: 2 ok, 0 failed in 1.00 s (2.0/s)");
        let counts = Counts { ok: 1, failed: 1, refused: 3, skipped: 4, retries: 2 };
        assert_eq!(
            summary(counts, second),
            "2 tasks: 1 ok, 1 failed, 2 retries, 3 not run, 4 skipped in 1.00 s (4.0/s)"
        );
    }
}
