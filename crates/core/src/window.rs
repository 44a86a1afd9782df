//! One limit's window: a log of completions, and when their units are free again.
//!
//! The units of a completed task are held from its completion `c` up to and including `c + per`. The log keeps
//! each completion as the pair (`c`, units completed up to and including it). With running totals instead of
//! weights, "when are `n` units free again" is a binary search, and merging two neighbours drops the earlier one.
//! The units of running tasks are an argument, as all windows share the running tasks (`windows.rs`).
//!
//! Invariants: stamps never decrease; an entry is stamped with the latest completion that it stands for; the log
//! has at most [`ENTRIES_MAX`] entries; no sum wraps, whatever a completion reports. Nothing here knows the queue or
//! the concurrency.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::config::CONCURRENCY_MAX;
use crate::limit::{Limit, RATE_MAX, Unit};

/// The log keeps up to [`ENTRIES_MAX`] completions one by one. Beyond that, and for one period afterwards,
/// completions within `per / SLOTS` of each other share one entry.
pub(crate) const SLOTS: u64 = 65_536;

/// The most entries a log holds: 16 bytes each, 1.06 MiB in all. 1/16 of slack over [`SLOTS`]: a merge leaves at
/// most `SLOTS + 1` entries, so at least 4,095 completions pass between two merges (amortised O(1)).
pub(crate) const ENTRIES_MAX: usize = SLOTS as usize + SLOTS as usize / 16;

/// The most that the log of one limit can ever hold: a full window and [`RATE_MAX`] units of every task that may
/// run at once, rounded up to a power of two.
pub(crate) const HELD_MAX: u64 = 2 * RATE_MAX * CONCURRENCY_MAX as u64;

/// The log counts units that no grant reserved only up to this sum, which leaves room for every running task.
const UNKNOWN_MAX: u64 = HELD_MAX / 2 - RATE_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When the task completed.
    pub(crate) at: u64,
    /// Units completed up to and including this one, since the window began; wraps around.
    pub(crate) total: u64,
}

#[derive(Debug)]
pub(crate) struct Window {
    limit: Limit,
    /// The limit's period, stretched by the clock drift that the machine allows for.
    per_ns: u64,
    /// The units in the log.
    completed: u64,
    log: VecDeque<Entry>,
    /// Until when the first entry of the log is held, `u64::MAX` where there is none. Kept here so that most looks at
    /// the time leave the log alone, which is far away where there are many windows.
    first_held_until: u64,
    /// The running total before the first entry of the log.
    expired_total: u64,
    /// The units that have left the log so far, as far as 64 bits can count.
    pub(crate) expired: u64,
    /// Units that this limit did not bound: used without a grant, beyond a grant, or under earlier limits. With
    /// [`Self::expired`] it bounds what a longer period would still hold.
    pub(crate) unbounded: u64,
    /// Until when completions are merged as they come: one period from the last merge.
    merging_until: u64,
    /// The earliest completion that the last entry stands for, while merging.
    group_start: u64,
}

/// When a window has room for some units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// There is room.
    Now,
    /// There is room at this instant and not a nanosecond earlier, if nothing else happens.
    At(u64),
    /// Unknown: running tasks hold too much.
    AfterCompletion,
}

impl Opening {
    /// An opening later than `now`, for when there is no room now: `opens_at`, if it is known and later
    /// than `now`. Else something is wrong, or `now` is the greatest time. There is no room then either,
    /// and it is soon enough to look again after one `period`.
    pub(crate) fn later(opens_at: Option<u64>, now: u64, period: u64) -> Self {
        let to_come = |at: &u64| *at > now;
        let in_a_period = now.saturating_add(period);
        let at = opens_at.filter(to_come).or(Some(in_a_period).filter(to_come));
        at.map_or(Self::AfterCompletion, Self::At)
    }
}

impl Window {
    pub(crate) fn new(limit: Limit, drift_ppm: u32) -> Self {
        let per_ns = limit.per_ns();
        let drift_ns = (u128::from(per_ns) * u128::from(drift_ppm)).div_ceil(1_000_000) as u64;
        Self {
            limit,
            per_ns: per_ns + drift_ns,
            completed: 0,
            log: VecDeque::new(),
            first_held_until: u64::MAX,
            expired_total: 0,
            expired: 0,
            unbounded: 0,
            merging_until: 0,
            group_start: 0,
        }
    }

    pub(crate) fn limit(&self) -> Limit {
        self.limit
    }

    /// The limit's period, stretched by the clock drift.
    pub(crate) fn per_ns(&self) -> u64 {
        self.per_ns
    }

    /// The held units: `running` by running tasks, the others by completions in the log.
    #[inline]
    pub(crate) fn held(&self, running: u64) -> u64 {
        self.completed.saturating_add(running)
    }

    /// The units held by completions.
    pub(crate) fn completed(&self) -> u64 {
        self.completed
    }

    /// Whether a task of `weight` fits beside everything held as of the last [`Self::expire`]. Held
    /// units only become fewer as time passes, so a task that fits once goes on fitting.
    #[inline]
    pub(crate) fn has_room(&self, running: u64, weight: u64) -> bool {
        self.limit.units(weight) <= self.limit.rate().saturating_sub(self.held(running))
    }

    /// When a task of `weight` fits.
    pub(crate) fn opening(&self, running: u64, weight: u64) -> Opening {
        if self.has_room(running, weight) {
            return Opening::Now;
        }
        let frees_enough = self.frees(self.surplus(running, self.limit.units(weight)));
        frees_enough.map_or(Opening::AfterCompletion, Opening::At)
    }

    /// As [`Self::opening`], if all running tasks turned out to have used nothing. So no task of
    /// `weight` fits earlier, whatever the running tasks give back. 0 if it may fit now.
    pub(crate) fn opens_no_earlier(&self, weight: u64) -> u64 {
        let asked = self.completed.saturating_add(self.limit.units(weight));
        match asked.saturating_sub(self.limit.rate()) {
            0 => 0,
            surplus => self.frees(surplus).unwrap_or(0),
        }
    }

    /// How many units are too many if `units` more are requested.
    pub(crate) fn surplus(&self, running: u64, units: u64) -> u64 {
        self.held(running).saturating_add(units).saturating_sub(self.limit.rate())
    }

    /// When `units` (at least 1) of the completed units are free again. `None` if fewer have completed.
    pub(crate) fn frees(&self, units: u64) -> Option<u64> {
        let first_enough =
            self.log.partition_point(|entry| entry.total.wrapping_sub(self.expired_total) < units);
        // The window is closed: the units are still held *at* `at + per`.
        let entry = self.log.get(first_enough)?;
        Some(entry.at.saturating_add(self.per_ns).saturating_add(1))
    }

    /// Drops the entries that are no longer held at `now`.
    #[inline]
    pub(crate) fn expire(&mut self, now: u64) {
        if now > self.first_held_until {
            self.expire_first(now);
        }
    }

    fn expire_first(&mut self, now: u64) {
        while let Some(entry) = self.log.front() {
            if now <= entry.at.saturating_add(self.per_ns) {
                break;
            }
            let units = entry.total.wrapping_sub(self.expired_total);
            self.completed -= units;
            self.expired = self.expired.saturating_add(units);
            self.expired_total = entry.total;
            self.log.pop_front();
        }
        self.note_first();
    }

    /// The first entry of the log is another, or has another stamp.
    fn note_first(&mut self) {
        let held_until = |entry: &Entry| entry.at.saturating_add(self.per_ns);
        self.first_held_until = self.log.front().map_or(u64::MAX, held_until);
    }

    /// A task that took `reserved` completes at `at`, having used `actual`. Needs `at` to be no
    /// earlier than any stamp before it.
    #[inline]
    pub(crate) fn complete(&mut self, reserved: u64, actual: u64, at: u64) {
        // No rate is over RATE_MAX, so more units would change no decision. The bound keeps sums within 64 bits.
        let units = self.limit.units(actual).min(RATE_MAX);
        if actual > reserved {
            self.spend_beyond(units - self.limit.units(reserved).min(units));
        }
        self.count(units, at);
    }

    /// A task without a grant of this machine completes at `at`, having used `actual`. Units over
    /// [`UNKNOWN_MAX`], which no past that kept the limit can hold, are not counted.
    pub(crate) fn complete_unknown(&mut self, actual: u64, at: u64) {
        let units = self.limit.units(actual).min(RATE_MAX);
        self.count_unknown(units, at);
    }

    /// Tasks from before this machine began completed at `at`.
    pub(crate) fn count_past(&mut self, tasks: u64, weight: u64, at: u64) {
        let units = match self.limit.unit() {
            Unit::Task => tasks,
            Unit::Weight => weight,
        };
        self.count_unknown(units, at);
    }

    /// Counts `units` that no grant reserved, completed at `at`, up to a sum of [`UNKNOWN_MAX`] in the log.
    pub(crate) fn count_unknown(&mut self, units: u64, at: u64) {
        let units = units.min(UNKNOWN_MAX.saturating_sub(self.completed));
        self.spend_beyond(units);
        self.count(units, at);
    }

    #[cold]
    fn spend_beyond(&mut self, units: u64) {
        self.unbounded = self.unbounded.saturating_add(units);
    }

    /// Counts units as completed at `at`. Needs `at` to be no earlier than any stamp before it.
    #[inline]
    fn count(&mut self, units: u64, at: u64) {
        self.completed += units;
        if units > 0 {
            self.log(at);
        }
    }

    /// Reads back a whole log from [`Self::completions`]. Needs the completions to be sorted and to add up to no
    /// more than [`HELD_MAX`].
    pub(crate) fn restore(&mut self, completions: impl IntoIterator<Item = (u64, u64)>) {
        for (at, units) in completions {
            self.count(units, at);
        }
    }

    /// Takes over the history of the earlier limits on the same unit, at `at`. All that the earlier windows hold
    /// stays held for the new period. If the new period is longer than the longest earlier one, it would still hold
    /// some units that have already expired. Their times are forgotten, so they count as completing at `at`.
    ///
    /// Their number is the least of three: the units that have expired so far; what the old rate allows in the
    /// added length (in whole old periods, rounded up), plus the units that it did not bound; and [`RATE_MAX`]. If
    /// there is no earlier limit on the unit, the window counts as full for any rate ([`RATE_MAX`]).
    pub(crate) fn take_over(&mut self, earlier: &[&Self], at: u64) {
        let most =
            |number: fn(&Self) -> u64| earlier.iter().map(|old| number(old)).max().unwrap_or(0);
        let Some(longest) = earlier.iter().max_by_key(|old| old.per_ns) else {
            self.count_unknown(RATE_MAX, at);
            return;
        };
        let (expired, unbounded) = (most(|old| old.expired), most(|old| old.unbounded));
        self.restore(most_of_all(earlier));
        self.expired = expired;
        // The new rate bounds nothing that came before it.
        self.unbounded = expired.saturating_add(self.completed);
        if self.per_ns > longest.per_ns {
            let more_periods = self.per_ns.div_ceil(longest.per_ns) - 1;
            let at_old_rate = longest.limit.rate().saturating_mul(more_periods);
            // Beside RATE_MAX units no rate has room.
            let unknown = expired.min(at_old_rate.saturating_add(unbounded)).min(RATE_MAX);
            self.count(unknown.min(UNKNOWN_MAX.saturating_sub(self.completed)), at);
        }
    }

    /// Writes down that what [`Self::completed`] has grown by completed at `at`.
    #[inline]
    fn log(&mut self, at: u64) {
        debug_assert!(self.log.back().is_none_or(|last| last.at <= at), "stamps never decrease");
        let total = self.expired_total.wrapping_add(self.completed);
        if at <= self.merging_until
            && at - self.group_start <= self.per_ns / SLOTS
            && let Some(last) = self.log.back_mut()
        {
            *last = Entry { at, total };
            if self.log.len() == 1 {
                self.note_first();
            }
            return;
        }
        if self.log.len() == self.log.capacity() {
            self.grow();
        }
        self.log.push_back(Entry { at, total });
        self.group_start = at;
        if self.log.len() == 1 {
            self.note_first();
        }
    }

    /// Makes room for one more entry: merges if the log is at its bound, else allocates a quarter more,
    /// but never more entries than the limit can fill.
    #[cold]
    fn grow(&mut self) {
        let len = self.log.len();
        if let (ENTRIES_MAX.., Some(last)) = (len, self.log.back()) {
            self.merging_until = last.at.saturating_add(self.per_ns);
            self.merge(self.per_ns / SLOTS);
            return;
        }
        let full = match self.limit.unit() {
            Unit::Task => usize::try_from(self.limit.rate()).unwrap_or(usize::MAX),
            Unit::Weight => usize::MAX,
        };
        let wanted = (len + len / 4).max(4).min(full.min(ENTRIES_MAX)).max(len + 1);
        self.log.reserve_exact(wanted - len);
    }

    /// Merges until at most `entries + 1` are left, if there are more than `entries` and 1/16 of slack.
    pub(crate) fn coarsen(&mut self, entries: usize) {
        let mut slot_ns = self.per_ns / entries as u64;
        while self.log.len() > entries + entries / 16 {
            self.merge(slot_ns);
            slot_ns = slot_ns.saturating_mul(2).max(1);
        }
    }

    /// Merges completions within a slot of each other into one entry stamped with the latest of them: held longer,
    /// never shorter. Groups start more than a slot apart and lie within one period, so there are at most as many of
    /// them as slots, and one more.
    fn merge(&mut self, slot_ns: u64) {
        let mut kept = 0;
        let mut group_start = self.log[0].at;
        for next in 1..self.log.len() {
            let at = self.log[next].at;
            if at - group_start > slot_ns {
                group_start = at;
                kept += 1;
            }
            self.log[kept] = self.log[next];
        }
        self.log.truncate(kept + 1);
        self.note_first();
    }

    /// The log as (completion, units) pairs, oldest first.
    pub(crate) fn completions(&self) -> impl Iterator<Item = (u64, u64)> {
        self.log.iter().scan(self.expired_total, |before, entry| {
            let units = entry.total.wrapping_sub(*before);
            *before = entry.total;
            Some((entry.at, units))
        })
    }

    /// Bytes allocated for the log.
    pub(crate) fn log_bytes(&self) -> usize {
        self.log.capacity() * size_of::<Entry>()
    }
}

/// Joins the logs of several windows of the same tasks. From any instant on, the result holds as many units as the
/// log that holds most. (One log may have other clients' usage, or a longer past.) Oldest first.
fn most_of_all(windows: &[&Window]) -> Vec<(u64, u64)> {
    let mut logs: Vec<_> =
        windows.iter().map(|window| window.completions().collect::<Vec<_>>()).collect();
    let mut since = vec![0_u64; logs.len()];
    let (mut most, mut joined) = (0, Vec::new());
    // From the latest to the oldest.
    while let Some(at) = logs.iter().filter_map(|log| log.last()).map(|(at, _)| *at).max() {
        for (log, since) in logs.iter_mut().zip(&mut since) {
            while let Some((_, units)) = log.pop_if(|(other, _)| *other == at) {
                *since += units;
            }
        }
        let now_most = since.iter().copied().fold(0, u64::max);
        if now_most > most {
            joined.push((at, now_most - most));
        }
        most = now_most;
    }
    joined.reverse();
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::PER_MAX;

    #[test]
    fn without_room_now_the_opening_is_always_later_than_now() {
        for opens_at in [None, Some(0), Some(99), Some(100)] {
            assert_eq!(Opening::later(opens_at, 100, 7), Opening::At(107), "{opens_at:?}");
        }
        assert_eq!(Opening::later(Some(101), 100, 7), Opening::At(101));
        for opens_at in [None, Some(5), Some(u64::MAX)] {
            assert_eq!(Opening::later(opens_at, u64::MAX, 7), Opening::AfterCompletion);
        }
    }

    #[test]
    fn no_completion_wraps_the_sum_of_held_units() {
        let mut window = Window::new(Limit::weight(RATE_MAX, PER_MAX).unwrap(), 0);
        let completions = HELD_MAX / RATE_MAX + 3;
        (0..completions).for_each(|at| window.complete_unknown(u64::MAX, at));
        assert_eq!((window.held(0), window.held(u64::MAX)), (UNKNOWN_MAX, u64::MAX));
        assert!(!window.has_room(u64::MAX, 1));
        window.expire(u64::MAX);
        assert_eq!((window.held(0), window.expired), (0, UNKNOWN_MAX));
    }
}
