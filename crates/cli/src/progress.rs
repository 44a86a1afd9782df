//! The progress of a run: the status line on a terminal, and messages about long waits elsewhere.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use strict_rate_limiter::RateLimiter;

use crate::status_line::StatusLine;
use crate::summary::{Counts, Failures, NeverStarted, summary};

/// The time over which the current rate is measured.
const RATE_OVER: Duration = Duration::from_secs(10);

/// The time between two samples of the rate.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// Without a terminal, a wait longer than this is reported. It is also the time until the second report; each
/// further interval is twice as long, up to [`LONGEST_SILENCE`].
const LONG_WAIT: Duration = Duration::from_secs(30);
const LONGEST_SILENCE: Duration = Duration::from_secs(600);

/// The most columns of the bar.
const BAR_MAX: usize = 30;

pub(crate) struct Progress {
    pub(crate) status_line: Rc<StatusLine>,
    quiet: bool,
    concurrency: u32,
    begin: Instant,
    rate: Rate,
    work: Work,
    long_wait: LongWait,
    turn: usize,
    pub(crate) counts: Counts,
    pub(crate) failures: Failures,
}

/// Ended tasks per second, over the last [`RATE_OVER`].
#[derive(Debug, Default)]
struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

/// The duration of tasks: a moving average, in which the latest task weighs an eighth.
#[derive(Debug, Default)]
struct Work {
    mean: Option<Duration>,
    weight: u64,
    tasks: u64,
}

/// Decides when a long wait is reported.
#[derive(Debug, Default)]
struct LongWait {
    again: Option<(Instant, Duration)>,
}

/// The progress at one moment.
#[derive(Debug, Default)]
struct State {
    counts: Counts,
    total: Option<u64>,
    per_second: Option<f64>,
    left: Option<Duration>,
    /// The time until the limit's next opening, if nothing runs and an item waits.
    next_in: Option<Duration>,
}

impl Progress {
    pub(crate) fn new(status_line: Rc<StatusLine>, quiet: bool, concurrency: usize) -> Self {
        let begin = Instant::now();
        let mut rate = Rate::default();
        rate.sample(begin, 0);
        Self {
            status_line,
            quiet,
            concurrency: u32::try_from(concurrency).unwrap_or(u32::MAX),
            begin,
            rate,
            work: Work::default(),
            long_wait: LongWait::default(),
            turn: 0,
            counts: Counts::default(),
            failures: Failures::default(),
        }
    }

    /// A task has ended.
    pub(crate) fn ended(&mut self, took: Duration, weight: u64) {
        self.work.ended(took, weight);
    }

    /// Shows the progress. Called a few times a second.
    pub(crate) fn show(&mut self, total: Option<u64>, limiter: &RateLimiter) {
        if self.quiet {
            return;
        }
        let now = Instant::now();
        self.rate.sample(now, self.counts.ok + self.counts.failed);
        let state = self.state(total, limiter, now);
        if self.status_line.is_drawn() {
            self.turn += 1;
            self.status_line.draw(|width| line(&state, width, self.turn));
        } else if self.long_wait.is_to_be_told(state.next_in, now) {
            self.status_line.tell(long_wait(&state));
        }
    }

    fn state(&self, total: Option<u64>, limiter: &RateLimiter, now: Instant) -> State {
        let stats = limiter.stats();
        let next_in = (stats.running == 0 && stats.queued > 0)
            .then(|| stats.next_opening.map(|at| at.saturating_duration_since(now)));
        let left = total.map(|total| {
            let left = total.saturating_sub(self.counts.done());
            let to_start = left.saturating_sub(stats.running as u64);
            // A weight over a limit has no next opening.
            let by_limit = limiter.forecast(to_start, self.work.mean_weight()).unwrap_or_default();
            by_limit.max(self.work.time_for(left, self.concurrency))
        });
        State {
            counts: self.counts,
            total,
            per_second: self.rate.per_second(now, self.counts.ok + self.counts.failed),
            left,
            next_in: next_in.flatten(),
        }
    }

    /// Prints the summary.
    pub(crate) fn finish(&self, never_started: NeverStarted) {
        self.status_line.clear();
        if !self.quiet {
            let took = self.begin.elapsed();
            self.status_line.tell_whole(&summary(self.counts, &self.failures, never_started, took));
        }
    }
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

    /// `None` before the first sample.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people, to a tenth")]
    fn per_second(&self, now: Instant, ended: u64) -> Option<f64> {
        let (since, before) = self.samples.front()?;
        let per_second = (ended - before) as f64 / (now - *since).as_secs_f64();
        per_second.is_normal().then_some(per_second)
    }
}

impl Work {
    fn ended(&mut self, took: Duration, weight: u64) {
        self.mean = Some(self.mean.map_or(took, |mean| (mean * 7 + took) / 8));
        self.weight = self.weight.saturating_add(weight);
        self.tasks += 1;
    }

    fn mean_weight(&self) -> u64 {
        self.weight.checked_div(self.tasks).unwrap_or(1)
    }

    /// How long this many tasks take, if no limit delays them.
    fn time_for(&self, tasks: u64, at_once: u32) -> Duration {
        let rounds = u32::try_from(tasks.div_ceil(at_once.into())).unwrap_or(u32::MAX);
        self.mean.unwrap_or_default().saturating_mul(rounds)
    }
}

impl LongWait {
    /// Whether to report now: when a wait longer than [`LONG_WAIT`] begins, and then at growing intervals.
    fn is_to_be_told(&mut self, next_in: Option<Duration>, now: Instant) -> bool {
        let Some(next_in) = next_in else {
            self.again = None;
            return false;
        };
        let silence = match self.again {
            None if next_in > LONG_WAIT => LONG_WAIT,
            Some((at, silence)) if now >= at => (silence * 2).min(LONGEST_SILENCE),
            _ => return false,
        };
        self.again = Some((now + silence, silence));
        true
    }
}

/// The status line, in at most `width` columns.
fn line(state: &State, width: usize, turn: usize) -> String {
    let done = done(state);
    let failed = state.counts.failed + state.counts.refused;
    let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    let left = state.left.map_or_else(String::new, |left| format!(", {} left", short(left)));
    let rate = state.per_second.map_or_else(String::new, |rate| format!(", {rate:.1}/s"));
    let next = state.next_in.filter(|next| next.as_secs() > 0);
    let next = next.map_or_else(String::new, |next| format!(", next in {}", short(next)));
    let mut text = format!("{done}{failed}{left}");
    let bar = (width / 3).min(BAR_MAX);
    let (bar, mut room) = match width.checked_sub(text.len() + bar + 3) {
        Some(room) if state.total.is_some() => (bar, room),
        _ => (0, width.saturating_sub(text.len() + 2)),
    };
    // Adds the parts that fit, the most important first.
    for part in [rate, next] {
        if let Some(less) = room.checked_sub(part.len()) {
            (room, text) = (less, text + &part);
        }
    }
    match state.total {
        Some(total) if bar > 0 => {
            let full = bar
                * usize::try_from(state.counts.done()).unwrap_or(usize::MAX).min(1 << 40)
                / usize::try_from(total.max(1)).unwrap_or(usize::MAX).min(1 << 40);
            let full = "=".repeat(full.min(bar)) + if full < bar { ">" } else { "" };
            format!("[{full:bar$}] {text}")
        }
        None => format!("{} {text}", ["-", "\\", "|", "/"][turn % 4]),
        Some(_) => text,
    }
}

fn done(state: &State) -> String {
    let done = state.counts.done();
    state.total.map_or_else(|| format!("{done} done"), |total| format!("{done}/{total} done"))
}

/// The message about a long wait, without a terminal.
fn long_wait(state: &State) -> String {
    let next = short(state.next_in.unwrap_or_default());
    let left = state.left.map_or_else(String::new, |left| format!(", {} left", short(left)));
    format!("{}; waiting for the limit, which opens in {next}{left}", done(state))
}

/// A duration in its two largest units, whole seconds rounded up.
fn short(duration: Duration) -> String {
    // Less than a millisecond over is the nanosecond between two closed windows.
    let seconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).div_ceil(1_000);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

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
        // Nothing ends: the rate falls.
        for second in 41..60 {
            rate.sample(at(1_000 * second), 220);
        }
        assert_eq!(rate.per_second(at(60_000), 220), None);
    }

    #[test]
    fn the_time_that_work_takes_is_its_mean_by_what_runs_at_once() {
        let mut work = Work::default();
        assert_eq!(work.time_for(100, 1), S(0), "nothing is known yet");
        work.ended(S(2), 10);
        work.ended(S(2), 20);
        assert_eq!((work.time_for(10, 1), work.time_for(10, 4)), (S(20), S(6)));
        assert_eq!(work.mean_weight(), 15);
    }

    #[test]
    fn the_line_fits_whatever_the_width() {
        let counts = Counts { ok: 12_345, failed: 678, ..Counts::default() };
        let state = State {
            counts,
            total: Some(1_000_000),
            per_second: Some(1234.5),
            left: Some(S(100_000)),
            next_in: Some(S(59)),
        };
        let least = "13023/1000000 done, 678 failed, 1d 3h left";
        for width in 1..200 {
            assert!(line(&state, width, 3).len() <= width.max(least.len()));
        }
        assert_eq!(line(&state, 44, 0), least);
        let wide = "[>                             ] 13023/1000000 done, 678 failed, 1d 3h left, \
            1234.5/s, next in 59s";
        assert_eq!(line(&state, 120, 0), wide);
        let counts = Counts { ok: 2, ..Counts::default() };
        let state = State { counts, total: Some(4), left: Some(S(3)), ..state };
        assert_eq!(line(&state, 44, 0), "[=======>      ] 2/4 done, 3s left, 1234.5/s");
        let state = State { total: None, left: None, per_second: None, ..state };
        assert_eq!(line(&state, 44, 1), "\\ 2 done, next in 59s");
    }

    #[test]
    fn a_long_wait_is_told_when_it_begins_and_then_ever_less_often() {
        let begin = Instant::now();
        let mut wait = LongWait::default();
        let mut told = vec![];
        for second in 0..4_000 {
            let next_in = Some(S(4_000 - second));
            if wait.is_to_be_told(next_in, begin + S(second)) {
                told.push(second);
            }
        }
        assert_eq!(told[..6], [0, 30, 90, 210, 450, 930]);
        assert_eq!(told[6], 930 + 600);
        assert!(!wait.is_to_be_told(None, begin), "it runs again");
        assert!(!wait.is_to_be_told(Some(S(30)), begin), "not long");
        assert!(wait.is_to_be_told(Some(S(31)), begin));
    }

    #[test]
    fn durations_are_short_and_rounded_up() {
        let shown = [0, 59, 60, 3_599, 3_600, 90_000].map(|seconds| short(S(seconds)));
        assert_eq!(shown, ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "1d 1h"]);
        assert_eq!(short(Duration::from_millis(39_001)), "40s");
    }
}
