//! The queue of waiters, first in, first out.
//!
//! Tickets rise and the entries stay sorted by them, so a binary search for its ticket finds a waiter.
//! A waiter that leaves from the middle leaves a *tombstone*. Tombstones at either end are dropped at
//! once, and all of them when they outnumber the waiters. So each costs constant time (amortised), and
//! the queue has at most twice as many entries as waiters (and 16).
//!
//! The first `capacity` waiters are *accepted*; those behind them wait for room. Acceptance follows
//! the order of the queue, so one boundary separates the accepted waiters from the others.

use alloc::collections::VecDeque;

use crate::types::{Enqueued, Ticket};

#[derive(Debug)]
struct Entry<T> {
    ticket: Ticket,
    weight: u64,
    /// `None` once cancelled: a tombstone.
    waiter: Option<T>,
}

#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// Sorted by ticket. Neither the first nor the last entry is a tombstone.
    entries: VecDeque<Entry<T>>,
    waiting: usize,
    next: Ticket,
    capacity: usize,
    /// How many of the first entries lie before the boundary, tombstones included.
    accepted_entries: usize,
    /// How many of those are waiters. Equals `min(waiting, capacity)`, except between a waiter moving
    /// up and [`Queue::accept_next`] returning it.
    accepted: usize,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize, next: Ticket) -> Self {
        Self {
            entries: VecDeque::new(),
            waiting: 0,
            next,
            capacity,
            accepted_entries: 0,
            accepted: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// The ticket that the next waiter will get.
    pub(crate) fn next_ticket(&self) -> Ticket {
        self.next
    }

    /// The tickets and weights of all waiters, first to last.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (Ticket, u64)> {
        let waiting = self.entries.iter().filter(|entry| entry.waiter.is_some());
        waiting.map(|entry| (entry.ticket, entry.weight))
    }

    /// The ticket and weight of the first waiter.
    pub(crate) fn head(&self) -> Option<(Ticket, u64)> {
        self.entries.front().map(|entry| (entry.ticket, entry.weight))
    }

    /// Hands out a ticket to one that does not wait.
    pub(crate) fn take_ticket(&mut self) -> Ticket {
        let ticket = self.next;
        self.next = Ticket(ticket.0 + 1);
        ticket
    }

    #[inline]
    pub(crate) fn push(&mut self, weight: u64, waiter: T) -> Enqueued {
        let ticket = self.take_ticket();
        let accepted = self.push_as(ticket, weight, waiter);
        Enqueued { ticket, accepted }
    }

    /// Adds a waiter that already has a ticket, later than all in the queue. Returns whether it is
    /// accepted.
    #[inline]
    pub(crate) fn push_as(&mut self, ticket: Ticket, weight: u64, waiter: T) -> bool {
        debug_assert!(self.entries.back().is_none_or(|last| last.ticket < ticket));
        debug_assert!(ticket < self.next);
        let all_accepted = self.accepted_entries == self.entries.len();
        let accepted = all_accepted && self.accepted < self.capacity;
        self.entries.push_back(Entry { ticket, weight, waiter: Some(waiter) });
        self.waiting += 1;
        if accepted {
            self.accepted_entries += 1;
            self.accepted += 1;
        }
        accepted
    }

    /// Removes the first waiter.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<(Ticket, u64, T)> {
        let Entry { ticket, weight, waiter } = self.pop_front_entry()?;
        self.waiting -= 1;
        self.accepted = self.accepted.saturating_sub(1);
        while self.entries.front().is_some_and(|entry| entry.waiter.is_none()) {
            self.pop_front_entry();
        }
        Some((ticket, weight, waiter.expect("the first entry is not a tombstone")))
    }

    /// Removes a waiter from anywhere in the queue.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let index = self.find(ticket)?;
        let waiter = self.entries[index].waiter.take()?;
        self.waiting -= 1;
        if index < self.accepted_entries {
            self.accepted -= 1;
        }
        self.trim();
        if self.entries.len() > 2 * self.waiting + 16 {
            self.drop_tombstones();
        }
        Some(waiter)
    }

    /// Moves the boundary past the next waiter if there is room for it, and returns that waiter.
    #[inline]
    pub(crate) fn accept_next(&mut self) -> Option<(Ticket, &mut T)> {
        if self.accepted >= self.capacity || self.accepted_entries == self.entries.len() {
            return None;
        }
        let behind = self.entries.range_mut(self.accepted_entries..);
        let (offset, entry) = behind.enumerate().find(|(_, entry)| entry.waiter.is_some())?;
        self.accepted_entries += offset + 1;
        self.accepted += 1;
        Some((entry.ticket, entry.waiter.as_mut().expect("found because it is there")))
    }

    /// Whether a waiter in the queue is accepted; `None` if it is not in the queue.
    #[inline]
    pub(crate) fn is_accepted(&self, ticket: Ticket) -> Option<bool> {
        let index = self.find(ticket)?;
        Some(index < self.accepted_entries)
    }

    pub(crate) fn waiter_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        let index = self.find(ticket)?;
        self.entries[index].waiter.as_mut()
    }

    /// The waiters' values, first to last.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|entry| entry.waiter.as_ref())
    }

    /// Empties the queue and returns the waiters' values.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        let entries = core::mem::take(&mut self.entries);
        self.waiting = 0;
        self.accepted = 0;
        self.accepted_entries = 0;
        entries.into_iter().filter_map(|entry| entry.waiter)
    }

    /// The index of a waiter's entry. Tickets are consecutive unless a tombstone was dropped between
    /// them, so the distance from the first is the index or a little more.
    #[inline]
    fn find(&self, ticket: Ticket) -> Option<usize> {
        let distance = ticket.0.checked_sub(self.entries.front()?.ticket.0)?;
        let guess = usize::try_from(distance).unwrap_or(usize::MAX);
        let index = match self.entries.get(guess) {
            Some(entry) if entry.ticket == ticket => guess,
            _ => self.entries.binary_search_by_key(&ticket, |entry| entry.ticket).ok()?,
        };
        self.entries[index].waiter.is_some().then_some(index)
    }

    fn pop_front_entry(&mut self) -> Option<Entry<T>> {
        let entry = self.entries.pop_front()?;
        self.accepted_entries = self.accepted_entries.saturating_sub(1);
        Some(entry)
    }

    /// Drops the tombstones at either end.
    fn trim(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.waiter.is_none()) {
            self.pop_front_entry();
        }
        while self.entries.back().is_some_and(|entry| entry.waiter.is_none()) {
            self.entries.pop_back();
        }
        self.accepted_entries = self.accepted_entries.min(self.entries.len());
    }

    #[cold]
    fn drop_tombstones(&mut self) {
        self.entries.retain(|entry| entry.waiter.is_some());
        self.entries.shrink_to(2 * self.waiting + 16);
        // The tombstones before the boundary are gone: only accepted waiters are left there.
        self.accepted_entries = self.accepted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_of(waiters: u64) -> Queue<u64> {
        let mut queue = Queue::new(usize::MAX, Ticket(0));
        (0..waiters).for_each(|waiter| {
            queue.push(1, waiter);
        });
        queue
    }

    #[test]
    fn the_queue_has_at_most_twice_as_many_entries_as_waiters() {
        let mut queue = queue_of(10_000);
        for waiter in 1..9_999 {
            assert_eq!(queue.cancel(Ticket(waiter)), Some(waiter));
            assert!(queue.entries.len() <= 2 * queue.waiting + 16, "{}", queue.entries.len());
        }
        assert!(queue.entries.capacity() <= 2 * 18 + 16, "{}", queue.entries.capacity());
        assert_eq!(
            [queue.pop(), queue.pop()],
            [Some((Ticket(0), 1, 0)), Some((Ticket(9_999), 1, 9_999))]
        );
    }

    #[test]
    fn tombstones_are_dropped_only_when_they_outnumber_the_waiters() {
        let mut queue = queue_of(1_000);
        for waiter in 1..508 {
            queue.cancel(Ticket(waiter));
            assert_eq!(queue.entries.len(), 1_000, "after {waiter}");
        }
        queue.cancel(Ticket(508));
        queue.cancel(Ticket(509));
        assert_eq!(queue.entries.len(), queue.waiting);
    }
}
