//! One limit's window: the units held, since when, and when there is room again.
//!
//! A completed task's units are held from its completion `c` up to and including `c + per`. The log
//! keeps each completion as the pair (`c`, units completed up to and including it): with running
//! totals instead of weights, "when will `n` units be free again" is a binary search, and merging
//! two neighbours is dropping the earlier one.
//!
//! Invariants: stamps never decrease; `held` is what running tasks have taken plus what the log
//! holds; an entry is stamped with the latest completion that it stands for; the log has at most
//! [`ENTRIES_MAX`] entries. Nothing here knows of order, concurrency or
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
    held: u64,
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

impl Window {
    pub(crate) fn new(limit: Limit, drift_ppm: u32) -> Self {
        let per_ns = limit.per_ns();
        let drift_ns = (u128::from(per_ns) * u128::from(drift_ppm)).div_ceil(1_000_000) as u64;
        Self {
            limit,
            per_ns: per_ns + drift_ns,
            held: 0,
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

    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// What of it is held for completed tasks.
    pub(crate) fn completed(&self) -> u64 {
        self.log.back().map_or(0, |last| last.total.wrapping_sub(self.expired_total))
    }

    /// Whether a task of `weight` fits beside everything held as of the last [`Self::expire`].
    /// What is held only ever shrinks as time passes, so what fits stays fitting.
    #[inline]
    pub(crate) fn has_room(&self, weight: u64) -> bool {
        self.limit.units(weight) <= self.limit.rate().saturating_sub(self.held)
    }

    /// When a task of `weight` fits.
    pub(crate) fn opening(&self, weight: u64) -> Opening {
        let wanted = self.held + self.limit.units(weight);
        let Some(surplus) = wanted.checked_sub(self.limit.rate()).filter(|surplus| *surplus > 0)
        else {
            return Opening::Now;
        };
        let first_enough = self
            .log
            .partition_point(|entry| entry.total.wrapping_sub(self.expired_total) < surplus);
        match self.log.get(first_enough) {
            // The window is closed: the units are still held *at* `at + per`.
            Some(entry) => Opening::At(entry.at.saturating_add(self.per_ns).saturating_add(1)),
            None => Opening::AfterCompletion,
        }
    }

    /// Drops what is no longer held at `now`.
    #[inline]
    pub(crate) fn expire(&mut self, now: u64) {
        while let Some(entry) = self.log.front() {
            if now <= entry.at.saturating_add(self.per_ns) {
                break;
            }
            self.held -= entry.total.wrapping_sub(self.expired_total);
            self.expired_total = entry.total;
            self.log.pop_front();
        }
    }

    /// A task of `weight` starts.
    #[inline]
    pub(crate) fn take(&mut self, weight: u64) {
        self.held += self.limit.units(weight);
    }

    /// A task of `weight` that was taken never starts.
    #[inline]
    pub(crate) fn give_back(&mut self, weight: u64) {
        self.held -= self.limit.units(weight);
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

    /// Units are held from `at` on. Needs `at` to be no earlier than any stamp before it.
    #[inline]
    pub(crate) fn count(&mut self, units: u64, at: u64) {
        self.held += units;
        if units > 0 {
            self.log(at, units);
        }
    }

    /// Reads back a task of `weight` that was completed at `at`, before this machine began. Records
    /// of more than any law-abiding past could hold stop counting at [`HELD_MAX`].
    pub(crate) fn remember(&mut self, weight: u64, at: u64) {
        let units = self.limit.units(weight).min(self.limit.rate());
        self.count(units.min(HELD_MAX.saturating_sub(self.held)), at);
    }

    /// Reads back a whole window, as [`Self::completions`] and [`Self::held`] gave it. Needs the
    /// completions to be sorted and to add up to no more than `held`, itself at most [`HELD_MAX`].
    pub(crate) fn restore(&mut self, held: u64, completions: impl IntoIterator<Item = (u64, u64)>) {
        for (at, units) in completions {
            self.log(at, units);
        }
        self.held = held;
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
