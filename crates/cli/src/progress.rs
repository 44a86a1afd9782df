//! What a person sees of a run: a bar on a terminal, messages, and one line at the end.

use std::fmt;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

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
    pub(crate) counts: Counts,
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
        bar.set_style(style("{spinner} {pos} done{msg}, {rate}"));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, quiet, begin: Instant::now(), counts: Counts::default() }
    }

    /// Now it is known how many items there are.
    pub(crate) fn set_total(&self, items: u64) {
        self.bar.set_length(items);
        self.bar.set_style(style("{bar:30} {pos}/{len} done{msg}, {rate}, {eta} left"));
    }

    /// The counts have changed.
    pub(crate) fn update(&self) {
        let Counts { ok, failed, refused, skipped, .. } = self.counts;
        self.bar.set_position(ok + failed + refused + skipped);
        if failed + refused > 0 {
            self.bar.set_message(format!(", {} failed", failed + refused));
        }
    }

    /// Tells something, without harm to the bar.
    pub(crate) fn tell(&self, message: impl fmt::Display) {
        self.bar.suspend(|| eprintln!("ratelimit: {message}"));
    }

    /// Does something that writes to the terminal, without harm to the bar.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Ends with the summary.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
        if !self.quiet {
            eprintln!("ratelimit: {}", summary(self.counts, self.begin.elapsed()));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    style.progress_chars("=> ").with_key(
        "rate",
        |state: &ProgressState, out: &mut dyn fmt::Write| {
            // A bar has nowhere to put an error in drawing itself.
            let _ = write!(out, "{:.1}/s", state.per_sec());
        },
    )
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
