//! One limit's window: a log of what completed, and when it leaves room again.
//!
//! The units of a completed task are held from its completion `c` up to and including `c + per`. The log keeps
//! each completion as the pair (`c`, units completed up to and including it): with running totals instead of
//! weights, "when will `n` units be free again" is a binary search, and merging two neighbours is dropping the
//! earlier one. What running tasks hold is an argument, as all windows share it (`windows.rs`).
//!
//! Invariants: stamps never decrease; an entry is stamped with the latest completion that it stands for; the log
//! has at most [`ENTRIES_MAX`] entries; no sum wraps, whatever is said to have completed. Nothing here knows of
//! order, concurrency or who asks.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::config::CONCURRENCY_MAX;
use crate::limit::{Limit, RATE_MAX, Unit};

/// The log keeps completions one by one up to [`ENTRIES_MAX`]; past that, and for one period after it,
/// those within `per / SLOTS` of each other share one entry.
pub(crate) const SLOTS: u64 = 65_536;

/// The most entries a log holds: 16 bytes each, 1.06 MiB in all. 1/16 of slack over [`SLOTS`]: a merge leaves at
/// most `SLOTS + 1` entries, so at least 4,095 completions pass between two merges (amortised O(1)).
pub(crate) const ENTRIES_MAX: usize = SLOTS as usize + SLOTS as usize / 16;

/// The most that the log of one limit can ever hold: a full window and [`RATE_MAX`] units of every task that may
/// run at once, rounded up to a power of two.
pub(crate) const HELD_MAX: u64 = 2 * RATE_MAX * CONCURRENCY_MAX as u64;

/// As much as the log holds at most of what no grant reserved. It leaves room for every task that runs.
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
    /// The running total before the first entry of the log.
    expired_total: u64,
    /// The units that have left the log so far, as far as 64 bits can count.
    pub(crate) expired: u64,
    /// Units that this limit did not bound: used without a grant or beyond it, or under earlier limits. With
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
            completed: 0,
            log: VecDeque::new(),
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

    /// What is held: by running tasks, which hold `running` units, and by the completions in the log.
    #[inline]
    pub(crate) fn held(&self, running: u64) -> u64 {
        self.completed.saturating_add(running)
    }

    /// What is held by completions.
    pub(crate) fn completed(&self) -> u64 {
        self.completed
    }

    /// Whether a task of `weight` fits beside everything held as of the last [`Self::expire`].
    /// What is held only ever shrinks as time passes, so what fits stays fitting.
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

    /// As [`Self::opening`], where whatever runs could turn out to have used nothing: no task of
    /// `weight` fits earlier, however much the running tasks give back. 0 where it may fit now.
    pub(crate) fn opens_no_earlier(&self, weight: u64) -> u64 {
        let asked = self.completed.saturating_add(self.limit.units(weight));
        match asked.saturating_sub(self.limit.rate()) {
            0 => 0,
            surplus => self.frees(surplus).unwrap_or(0),
        }
    }

    /// How many units are too many where `units` more are asked for.
    pub(crate) fn surplus(&self, running: u64, units: u64) -> u64 {
        self.held(running).saturating_add(units).saturating_sub(self.limit.rate())
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
            let units = entry.total.wrapping_sub(self.expired_total);
            self.completed -= units;
            self.expired = self.expired.saturating_add(units);
            self.expired_total = entry.total;
            self.log.pop_front();
        }
    }

    /// A task that took `reserved` completes at `at`, having used `actual`. Needs `at` to be no
    /// earlier than any stamp before it.
    #[inline]
    pub(crate) fn complete(&mut self, reserved: u64, actual: u64, at: u64) {
        // No limit is over RATE_MAX: to record more would change no decision, and the bound keeps the sums within
        // 64 bits.
        let units = self.limit.units(actual).min(RATE_MAX);
        if actual > reserved {
            self.spend_beyond(units - self.limit.units(reserved).min(units));
        }
        self.count(units, at);
    }

    /// A task that took nothing here completes at `at`, having used `actual`: it ran elsewhere, or
    /// before this machine began. What is over [`UNKNOWN_MAX`], which no law-abiding past could hold,
    /// does not count.
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

    /// `units` that no grant reserved are held from `at` on, as far as the log then holds at most
    /// [`UNKNOWN_MAX`].
    pub(crate) fn count_unknown(&mut self, units: u64, at: u64) {
        let units = units.min(UNKNOWN_MAX.saturating_sub(self.completed));
        self.spend_beyond(units);
        self.count(units, at);
    }

    #[cold]
    fn spend_beyond(&mut self, units: u64) {
        self.unbounded = self.unbounded.saturating_add(units);
    }

    /// Units are held from `at` on. Needs `at` to be no earlier than any stamp before it.
    #[inline]
    fn count(&mut self, units: u64, at: u64) {
        self.completed += units;
        if units > 0 {
            self.log(at, units);
        }
    }

    /// Reads back a whole log, as [`Self::completions`] gave it. Needs the completions to be sorted and to add up
    /// to no more than [`HELD_MAX`].
    pub(crate) fn restore(&mut self, completions: impl IntoIterator<Item = (u64, u64)>) {
        for (at, units) in completions {
            self.count(units, at);
        }
    }

    /// This limit takes over from earlier ones of the same unit, at `at`. Everything that one of them holds goes on
    /// being held. What they dropped, a longer period would still hold, but nobody knows any longer when that
    /// completed: it counts as completing at `at`, as much of it as there can be.
    ///
    /// That is no more than they have dropped, and no more than a window of the new length, full at the old rate,
    /// and what that rate did not bound. Where there is no earlier limit nothing is known, and the window is full
    /// for any rate.
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
            // No rate lets anything in beside RATE_MAX units.
            let unknown = expired.min(at_old_rate.saturating_add(unbounded)).min(RATE_MAX);
            self.count(unknown.min(UNKNOWN_MAX.saturating_sub(self.completed)), at);
        }
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

/// The log of several windows of the same tasks: from any instant on, it holds as much as the one that knows of
/// most. (One of them may know of other clients' usage, or of a longer past.) Oldest first.
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
        let mut window = Window::new(Limit::weight(RATE_MAX, PER_MAX).unwrap(), 0);
        let completions = HELD_MAX / RATE_MAX + 3;
        (0..completions).for_each(|at| window.complete_unknown(u64::MAX, at));
        assert_eq!((window.held(0), window.held(u64::MAX)), (UNKNOWN_MAX, u64::MAX));
        assert!(!window.has_room(u64::MAX, 1));
        window.expire(u64::MAX);
        assert_eq!((window.held(0), window.expired), (0, UNKNOWN_MAX));
    }
}
