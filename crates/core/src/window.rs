//! One limit's window: the units held, since when, and when there is room again.
//!
//! A completed task's units are held from its completion `c` up to and including `c + per`. The log
//! keeps each completion as the pair (`c`, units completed up to and including it): with running
//! totals instead of weights, "when will `n` units be free again" is a binary search, and merging
//! two neighbours is dropping the earlier one.
//!
//! Invariants: stamps never decrease; what is held is what running tasks have taken plus what the log
//! holds; an entry is stamped with the latest completion that it stands for; the log has at most
//! [`ENTRIES_MAX`] entries; no sum wraps, whatever is said to have completed. Nothing here knows of order, concurrency or
//! who asks.

use alloc::collections::VecDeque;

use crate::config::CONCURRENCY_MAX;
use crate::limit::{Limit, RATE_MAX, Unit};

/// Completions are kept one by one up to [`ENTRIES_MAX`]; past that, and for one period after it,
/// those within `per / SLOTS` of each other share one entry.
pub(crate) const SLOTS: u64 = 65_536;

/// The most entries a log holds: 16 bytes each, 1.06 MiB in all. The sixteenth over [`SLOTS`] is
/// what merging is paid with: a merge leaves at most `SLOTS + 1` entries, so at least 4,095
/// completions pass between two of them.
pub(crate) const ENTRIES_MAX: usize = SLOTS as usize + SLOTS as usize / 16;

/// The most that one limit can ever hold: a full window and an overspend of one rate's worth by
/// every task that may run at once, rounded up to a power of two.
pub(crate) const HELD_MAX: u64 = 2 * RATE_MAX * CONCURRENCY_MAX as u64;

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
    /// The units that running tasks have taken.
    running: u64,
    /// The units in the log.
    completed: u64,
    log: VecDeque<Entry>,
    /// The running total before the first entry of the log.
    expired_total: u64,
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
    /// There is no telling: tasks that have not completed hold too much.
    AfterCompletion,
}

impl Opening {
    /// An opening later than `now`, where there is no room now: `opens_at`, as far as that is known
    /// and to come. Else something here is wrong, or `now` is the end of time: then there is no room
    /// either, and a `period` later is soon enough to look again.
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
            running: 0,
            completed: 0,
            log: VecDeque::new(),
            expired_total: 0,
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

    #[inline]
    pub(crate) fn held(&self) -> u64 {
        self.running + self.completed
    }

    /// What of it is held for completed tasks.
    pub(crate) fn completed(&self) -> u64 {
        self.completed
    }

    /// What of it is held for running tasks.
    #[inline]
    pub(crate) fn running(&self) -> u64 {
        self.running
    }

    /// Whether a task of `weight` fits beside everything held as of the last [`Self::expire`].
    /// What is held only ever shrinks as time passes, so what fits stays fitting.
    #[inline]
    pub(crate) fn has_room(&self, weight: u64) -> bool {
        self.limit.units(weight) <= self.limit.rate().saturating_sub(self.held())
    }

    /// When a task of `weight` fits.
    pub(crate) fn opening(&self, weight: u64) -> Opening {
        if self.has_room(weight) {
            return Opening::Now;
        }
        let frees_enough = self.frees(self.surplus(self.limit.units(weight)));
        frees_enough.map_or(Opening::AfterCompletion, Opening::At)
    }

    /// How many units are too many where `units` more are asked for.
    pub(crate) fn surplus(&self, units: u64) -> u64 {
        self.held().saturating_add(units).saturating_sub(self.limit.rate())
    }

    /// When `units` of what has completed, at least 1, are free again. `None` where that is more than
    /// has completed.
    pub(crate) fn frees(&self, units: u64) -> Option<u64> {
        let first_enough =
            self.log.partition_point(|entry| entry.total.wrapping_sub(self.expired_total) < units);
        // The window is closed: the units are still held *at* `at + per`.
        let entry = self.log.get(first_enough)?;
        Some(entry.at.saturating_add(self.per_ns).saturating_add(1))
    }

    /// Drops what is no longer held at `now`.
    #[inline]
    pub(crate) fn expire(&mut self, now: u64) {
        while let Some(entry) = self.log.front() {
            if now <= entry.at.saturating_add(self.per_ns) {
                break;
            }
            self.completed -= entry.total.wrapping_sub(self.expired_total);
            self.expired_total = entry.total;
            self.log.pop_front();
        }
    }

    /// A task of `weight` starts.
    #[inline]
    pub(crate) fn take(&mut self, weight: u64) {
        self.running += self.limit.units(weight);
    }

    /// A task of `weight` that was taken never starts. Frees no more than running tasks hold.
    #[inline]
    pub(crate) fn give_back(&mut self, weight: u64) {
        self.running = self.running.saturating_sub(self.limit.units(weight));
    }

    /// A task that took `reserved` completes at `at`, having used `actual`. Needs `at` to be no
    /// earlier than any stamp before it.
    #[inline]
    pub(crate) fn complete(&mut self, reserved: u64, actual: u64, at: u64) {
        // As long as an entry of `rate` units is held, nothing else fits: recording more than that
        // would change no decision, and the bound keeps the sums within 64 bits.
        let units = self.limit.units(actual).min(self.limit.rate());
        self.give_back(reserved);
        self.count(units, at);
    }

    /// A task that took nothing here completes at `at`, having used `actual`: it ran elsewhere, or
    /// before this machine began. What is over [`HELD_MAX`], which no law-abiding past could hold,
    /// does not count.
    pub(crate) fn complete_unknown(&mut self, actual: u64, at: u64) {
        let units = self.limit.units(actual).min(self.limit.rate());
        self.count(units.min(HELD_MAX.saturating_sub(self.held())), at);
    }

    /// Units are held from `at` on. Needs `at` to be no earlier than any stamp before it.
    #[inline]
    pub(crate) fn count(&mut self, units: u64, at: u64) {
        self.completed += units;
        if units > 0 {
            self.log(at, units);
        }
    }

    /// Reads back a whole window, as [`Self::completions`] and [`Self::held`] gave it. Needs the
    /// completions to be sorted and to add up to no more than `held`, itself at most [`HELD_MAX`].
    pub(crate) fn restore(&mut self, held: u64, completions: impl IntoIterator<Item = (u64, u64)>) {
        for (at, units) in completions {
            self.count(units, at);
        }
        self.running = held - self.completed;
    }

    #[inline]
    fn log(&mut self, at: u64, units: u64) {
        let mut total = self.expired_total.wrapping_add(units);
        if let Some(last) = self.log.back_mut() {
            debug_assert!(last.at <= at, "stamps never decrease");
            total = last.total.wrapping_add(units);
            if at <= self.merging_until && at - self.group_start <= self.per_ns / SLOTS {
                *last = Entry { at, total };
                return;
            }
        }
        if self.log.len() == self.log.capacity() {
            self.grow();
        }
        self.log.push_back(Entry { at, total });
        self.group_start = at;
    }

    /// Makes room for one more entry: by merging where the log is at its bound, else by allocating
    /// a quarter more, but never past what the limit can fill.
    #[cold]
    fn grow(&mut self) {
        let len = self.log.len();
        if let (ENTRIES_MAX.., Some(last)) = (len, self.log.back()) {
            self.merging_until = last.at.saturating_add(self.per_ns);
            self.merge();
            return;
        }
        let full = match self.limit.unit() {
            Unit::Task => usize::try_from(self.limit.rate()).unwrap_or(usize::MAX),
            Unit::Weight => usize::MAX,
        };
        let wanted = (len + len / 4).max(4).min(full.min(ENTRIES_MAX)).max(len + 1);
        self.log.reserve_exact(wanted - len);
    }

    /// Merges completions within `per / SLOTS` of each other into one entry stamped with the latest
    /// of them: held longer, never shorter. Groups start more than a slot apart and lie within one
    /// period, so at most `SLOTS + 1` of them are left.
    fn merge(&mut self) {
        let slot_ns = self.per_ns / SLOTS;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::PER_MAX;

    #[test]
    fn where_there_is_no_room_the_opening_is_always_yet_to_come() {
        for opens_at in [None, Some(0), Some(99), Some(100)] {
            assert_eq!(Opening::later(opens_at, 100, 7), Opening::At(107), "{opens_at:?}");
        }
        assert_eq!(Opening::later(Some(101), 100, 7), Opening::At(101));
        for opens_at in [None, Some(5), Some(u64::MAX)] {
            assert_eq!(Opening::later(opens_at, u64::MAX, 7), Opening::AfterCompletion);
        }
    }

    #[test]
    fn nothing_that_completes_wraps_what_is_held() {
        let mut window = Window::new("5w/100ns".parse().unwrap(), 0);
        window.give_back(3);
        assert_eq!(window.held(), 0);
        window.take(2);
        window.complete_unknown(u64::MAX, 10);
        window.give_back(4);
        assert_eq!(window.held(), 5, "what has completed is nobody's to give back");
        let mut widest = Window::new(Limit::weight(RATE_MAX, PER_MAX).unwrap(), 0);
        widest.running = HELD_MAX - RATE_MAX - 1;
        for _ in 0..3 {
            widest.complete_unknown(u64::MAX, 1);
        }
        assert_eq!(widest.held(), HELD_MAX);
        window.expire(u64::MAX);
        assert_eq!((window.held(), window.running()), (0, 0));
    }
}
