//! A shared limit as text, in lines.

use std::path::Path;
use std::time::Duration;

use strict_rate_limiter::{Held, Limit};
use strict_rate_limiter_shared::folder::{Holder, Inspection, Process, Waiting};

use super::State;
use crate::display::{counted, shown};

/// The columns of a bar.
const BAR: usize = 30;

/// The most tasks that are listed, of those that run and of those that wait.
const LISTED_MAX: usize = 20;

/// All that was seen of it.
pub(super) fn all(folder: &Path, seen: &Inspection) -> Vec<String> {
    let mut lines = vec![folder.display().to_string()];
    let names: Vec<String> = seen.held.iter().map(|held| held.limit.to_string()).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let bars = names.iter().zip(&seen.held);
    lines.extend(bars.map(|(name, held)| format!("  {name:width$}  {}", bar(held))));
    lines.push(format!("  {}", how_many(seen)));
    lines.push(format!("  {}", opening(seen)));
    if !seen.holders.is_empty() {
        lines.push("running:".to_owned());
        lines.extend(holders(&seen.holders));
    }
    if !seen.waiters.is_empty() {
        lines.push("waiting, the next first:".to_owned());
        lines.extend(waiters(&seen.waiters));
    }
    lines
}

/// The settings, in one line.
pub(super) fn settings(seen: &Inspection) -> String {
    let config = &seen.config;
    let mut parts = vec![config.limits.iter().map(Limit::to_string).collect::<Vec<_>>().join(" ")];
    if config.paced {
        parts.push("paced".to_owned());
    }
    parts.push(format!("{} at once", counted(config.concurrency as u64, "task")));
    if config.abandon_grace_ns > 0 {
        let grace = Duration::from_nanos(config.abandon_grace_ns);
        parts.push(format!("a grace of {}", humantime::format_duration(grace)));
    }
    if config.clock_drift_ppm > 0 {
        parts.push(format!("a clock drift of {} ppm", config.clock_drift_ppm));
    }
    parts.join(", ")
}

/// The running tasks, a line each.
pub(super) fn holders(holders: &[Holder]) -> Vec<String> {
    listed(holders, |_, Holder { process, weight, since_ns, .. }| {
        let since = long(Duration::from_nanos(*since_ns));
        format!("{}for {since}{}", process_id(process), tail(process, *weight))
    })
}

/// The waiting tasks, a line each, in their order.
pub(super) fn waiters(waiters: &[Waiting]) -> Vec<String> {
    listed(waiters, |place, Waiting { process, weight, .. }| {
        format!("{place}. {}{}", process_id(process).trim_end(), tail(process, *weight))
    })
}

fn listed<T>(all: &[T], line: impl Fn(usize, &T) -> String) -> Vec<String> {
    let listed = all.iter().zip(1..).take(LISTED_MAX);
    let mut lines: Vec<_> = listed.map(|(one, place)| format!("  {}", line(place, one))).collect();
    if all.len() > LISTED_MAX {
        lines.push(format!("  and {} more", all.len() - LISTED_MAX));
    }
    lines
}

fn process_id(process: &Process) -> String {
    process.id.map_or_else(|| "a process ".to_owned(), |id| format!("process {id} "))
}

/// What follows the process's number: its weight, what is left of it, its command.
fn tail(process: &Process, weight: u64) -> String {
    let weight = if weight == 1 { String::new() } else { format!(", weight {weight}") };
    let state = match State::of(process) {
        State::Alive => "",
        State::Orphaned => ", killed; what it started runs on",
        State::Gone => ", gone; counts until another process looks",
    };
    let command = shown(process.command.as_bytes());
    let command = if command.is_empty() { command } else { format!(": {command}") };
    format!("{weight}{state}{command}")
}

fn how_many(seen: &Inspection) -> String {
    let at_once = seen.config.concurrency;
    let waits = seen.waiters.len();
    format!(
        "{} of {at_once} at once, {waits} waiting, {} done",
        counted(seen.running as u64, "running task"),
        seen.completed
    )
}

fn opening(seen: &Inspection) -> String {
    let opening = match seen.opens_in_ns {
        None => "opens when a running task has ended".to_owned(),
        Some(0) => "open".to_owned(),
        Some(ns) => format!("opens in {}", long(Duration::from_nanos(ns))),
    };
    if seen.paused_for_ns == 0 {
        return opening;
    }
    let pause = long(Duration::from_nanos(seen.paused_for_ns));
    format!("{opening}; paused for {pause}")
}

/// How full a window is.
fn bar(held: &Held) -> String {
    let rate = held.limit.rate();
    // More than the rate may be held: of a task that used more than it had reserved.
    let full = u128::from(held.units.min(rate)) * BAR as u128 / u128::from(rate);
    // A window that holds anything does not look empty.
    let full = usize::try_from(full).unwrap_or(BAR).max(usize::from(held.units > 0));
    format!("[{:BAR$}] {} of {rate}", "=".repeat(full), held.units.min(rate))
}

/// A duration: to a millisecond below ten seconds, else to a second. Rounded up.
pub(super) fn long(duration: Duration) -> String {
    let grain_ns = if duration < Duration::from_secs(10) { 1_000_000 } else { 1_000_000_000 };
    let rounded = duration.as_nanos().div_ceil(grain_ns).saturating_mul(grain_ns);
    let rounded = Duration::from_nanos(u64::try_from(rounded).unwrap_or(u64::MAX));
    humantime::format_duration(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(limit: &str, units: u64) -> Held {
        // Its fields may grow.
        let limiter = strict_rate_limiter::RateLimiter::builder().limit(limit.parse().unwrap());
        let mut held = limiter.build().unwrap().stats().held.remove(0);
        held.units = units;
        held
    }

    #[test]
    fn a_bar_shows_something_as_soon_as_there_is_anything_and_is_never_too_long() {
        let empty = format!("[{}] 0 of 1000", " ".repeat(BAR));
        assert_eq!(bar(&held("1000/1s", 0)), empty);
        assert!(bar(&held("1000/1s", 1)).starts_with("[= "));
        assert!(bar(&held("4/1s", 2)).starts_with(&format!("[{} ", "=".repeat(BAR / 2))));
        let full = format!("[{}] 4 of 4", "=".repeat(BAR));
        assert_eq!(bar(&held("4/1s", 4)), full);
        assert_eq!(bar(&held("4/1s", strict_rate_limiter::RATE_MAX)), full);
    }

    #[test]
    fn durations_are_rounded_up_to_what_matters() {
        let shown = |ns| long(Duration::from_nanos(ns));
        assert_eq!(shown(1), "1ms");
        assert_eq!(shown(1_500_000_001), "1s 501ms");
        assert_eq!(shown(59_000_000_001), "1m");
        assert_eq!(shown(0), "0s");
    }
}
