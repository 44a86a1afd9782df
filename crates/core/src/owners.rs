//! Who holds what and who waits, in a machine that several processes share.
//!
//! Each process is a *session*. Every permit that is out has a ticket, an owner and a weight, and every waiter has an
//! owner. So a permit is returned by its owner alone, once, and what a session leaves behind when it ends is known:
//! its waiters leave the queue, grants that it has never seen are undone, and its running tasks are abandoned.
//!
//! The machine itself does not know which processes live. The caller says who acts ([`Machine::act_as`]) and who has
//! ended ([`Machine::end_session`]).

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::machine::Machine;
use crate::types::{Grant, SessionId, Ticket};

/// A permit that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PermitOut {
    /// Its ticket: that of its waiter, or one of its own if it was granted at once.
    pub ticket: Ticket,
    /// The session that runs the task.
    pub session: SessionId,
    /// The weight that it reserves.
    pub weight: u64,
    /// The latest time that the machine had seen when the session took it.
    pub granted_at: u64,
}

/// A waiter that a change by another session has taken out of this session's part of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved<T> {
    /// Its ticket. [`Machine::status`] says what became of it.
    pub ticket: Ticket,
    /// Its weight.
    pub weight: u64,
    /// The value stored with it.
    pub waiter: T,
}

#[derive(Debug)]
pub(crate) struct Owners {
    /// Who makes the requests and the completions that come in. Not part of the state.
    pub(crate) acting: SessionId,
    pub(crate) next_session: u64,
    /// Sorted by ticket: waiters in the queue, and those granted that have not claimed their permits.
    pub(crate) waiters: Vec<(Ticket, SessionId)>,
    /// Sorted by ticket.
    pub(crate) out: Vec<PermitOut>,
    /// The head of the queue and the opening that its session was last told of.
    pub(crate) told: Option<(Ticket, u64)>,
}

impl Owners {
    fn find_waiter(&self, ticket: Ticket) -> Option<usize> {
        self.waiters.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }

    fn find_out(&self, ticket: Ticket) -> Option<usize> {
        self.out.binary_search_by_key(&ticket, |permit| permit.ticket).ok()
    }

    /// The acting session waits, with the latest ticket.
    pub(crate) fn waits(&mut self, ticket: Ticket) {
        self.waiters.push((ticket, self.acting));
    }

    /// Whether this waiter is the acting session's. Then it is no longer kept here.
    pub(crate) fn leaves(&mut self, ticket: Ticket) -> bool {
        let index = self.find_waiter(ticket);
        let own = index.filter(|index| self.waiters[*index].1 == self.acting);
        own.map(|index| self.waiters.remove(index)).is_some()
    }

    /// The waiter has left the queue, whoever its owner is. Returns the owner.
    pub(crate) fn forget(&mut self, ticket: Ticket) -> Option<SessionId> {
        let index = self.find_waiter(ticket)?;
        Some(self.waiters.remove(index).1)
    }

    /// The acting session's waiters, in the order of the queue.
    pub(crate) fn own_waiters(&self) -> Vec<Ticket> {
        self.of(self.acting)
    }

    fn of(&self, session: SessionId) -> Vec<Ticket> {
        let own = self.waiters.iter().filter(|(_, owner)| *owner == session);
        own.map(|(ticket, _)| *ticket).collect()
    }

    pub(crate) fn has_own(&self) -> bool {
        self.out.iter().any(|permit| permit.session == self.acting)
            || self.waiters.iter().any(|(_, session)| *session == self.acting)
    }

    /// Nobody holds anything or waits any more.
    pub(crate) fn clear(&mut self) {
        self.waiters.clear();
        self.out.clear();
        self.told = None;
    }

    fn give_out(&mut self, ticket: Ticket, weight: u64, granted_at: u64) {
        let permit = PermitOut { ticket, session: self.acting, weight, granted_at };
        let index = self.out.partition_point(|other| other.ticket < ticket);
        self.out.insert(index, permit);
    }
}

impl<T> Machine<T> {
    /// Begins a session, and acts as it from now on. From the first session on, every permit and every waiter has an
    /// owner; permits that were granted before have none, and are no longer known.
    ///
    /// ```
    /// # use strict_rate_limiter_core::{Config, Limit, Machine};
    /// let limit: Limit = "1/20ns".parse()?;
    /// let mut machine = Machine::<()>::new(Config::new([limit]))?;
    /// let first = machine.open_session();
    /// let permit = machine.try_grant(0, 1)?;
    ///
    /// let second = machine.open_session();
    /// let owner = machine.permits_out().next().map(|permit| permit.session);
    /// assert_eq!((owner, machine.acting()), (Some(first), Some(second)));
    /// // The first has died. Its task may have gone out until then.
    /// machine.end_session(first, 5, 5);
    /// assert!(machine.try_grant(25, 1).is_err());
    /// assert!(machine.try_grant(26, 1).is_ok());
    /// # drop(permit);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn open_session(&mut self) -> SessionId {
        let owners = self.owners.get_or_insert_with(|| {
            Box::new(Owners {
                acting: SessionId(0),
                next_session: 0,
                waiters: Vec::new(),
                out: Vec::new(),
                told: None,
            })
        });
        owners.acting = SessionId(owners.next_session);
        owners.next_session += 1;
        owners.acting
    }

    /// From now on, `session` makes the requests and returns the permits.
    pub fn act_as(&mut self, session: SessionId) {
        if let Some(owners) = &mut self.owners {
            owners.acting = session;
        }
    }

    /// The session that makes the requests; `None` if the machine has no sessions.
    pub fn acting(&self) -> Option<SessionId> {
        self.owners.as_ref().map(|owners| owners.acting)
    }

    /// The permits that are out, in the order of their tickets. Empty if the machine has no sessions.
    pub fn permits_out(&self) -> impl Iterator<Item = PermitOut> {
        self.owners.iter().flat_map(|owners| owners.out.iter().copied())
    }

    /// The waiters in the queue, first to last: ticket, owner and weight. Empty if the machine has no sessions.
    pub fn waiting(&self) -> impl Iterator<Item = (Ticket, SessionId, u64)> {
        let owned = |(ticket, weight)| Some((ticket, self.owner(ticket)?, weight));
        self.queue.waiting().filter_map(owned)
    }

    /// The owner of a waiter, in the queue or granted and not yet claimed.
    pub fn owner(&self, ticket: Ticket) -> Option<SessionId> {
        let owners = self.owners.as_ref()?;
        owners.find_waiter(ticket).map(|index| owners.waiters[index].1)
    }

    /// Whether the acting session has a waiter in the queue, or one granted that has not claimed its permit.
    pub fn has_own_waiters(&self) -> bool {
        let own = |owners: &Owners| owners.waiters.iter().any(|(_, owner)| *owner == owners.acting);
        self.owners.as_deref().is_some_and(own)
    }

    /// The other sessions that hold permits or wait, each once, oldest first. If one of them has died, it must be
    /// [ended](Self::end_session) before the queue can move.
    pub fn other_sessions(&self) -> Vec<SessionId> {
        let Some(owners) = &self.owners else { return Vec::new() };
        let waiting = owners.waiters.iter().map(|(_, session)| *session);
        let all = owners.out.iter().map(|permit| permit.session).chain(waiting);
        let mut others: Vec<SessionId> = all.filter(|session| *session != owners.acting).collect();
        others.sort_unstable();
        others.dedup();
        others
    }

    /// A session has ended, and nothing of it runs on. Its waiters leave the queue, and their values are returned.
    /// Grants that it has not claimed are undone. Its running tasks are abandoned: times as in [`Self::abandon`].
    /// Poll afterwards.
    pub fn end_session(&mut self, session: SessionId, now: u64, ended_at: u64) -> Vec<T> {
        let left = self.end_waiting(session);
        let Some(owners) = &mut self.owners else { return left };
        let ran: Vec<PermitOut> =
            owners.out.iter().copied().filter(|permit| permit.session == session).collect();
        owners.out.retain(|permit| permit.session != session);
        for permit in ran {
            self.windows.abandon(Grant::of_weight(permit.weight), now, ended_at);
        }
        left
    }

    /// A session asks for nothing more, but its running tasks may run on, as children of a process that has died. Its
    /// waiters leave the queue, and their values are returned. Grants that it has not claimed are undone. Poll afterwards.
    pub fn end_waiting(&mut self, session: SessionId) -> Vec<T> {
        let Some(owners) = &mut self.owners else { return Vec::new() };
        let waiters = owners.of(session);
        owners.waiters.retain(|(_, owner)| *owner != session);
        let mut left = Vec::new();
        for ticket in waiters {
            match self.take_unclaimed(ticket) {
                Some(unseen) => self.windows.undo(unseen),
                None => left.extend(self.queue.cancel(ticket)),
            }
        }
        left
    }

    /// The head of the queue can be granted at `opening`: the session that must be told, if it is another one and has not
    /// been told yet.
    pub fn tell_head(&mut self, opening: u64) -> Option<SessionId> {
        let head = self.head()?;
        let owner = self.owner(head)?;
        let owners = self.owners.as_mut()?;
        if owners.told == Some((head, opening)) {
            return None;
        }
        if owner == owners.acting {
            // It knows by itself, and no longer what it was told.
            owners.told = None;
            return None;
        }
        owners.told = Some((head, opening));
        Some(owner)
    }

    /// A permit granted at once, under a ticket and an owner.
    #[cold]
    pub(crate) fn own(&mut self, grant: Grant) -> Grant {
        let now = self.now();
        let Some(owners) = &mut self.owners else { return grant };
        let ticket = self.queue.take_ticket();
        owners.give_out(ticket, grant.weight(), now);
        grant.with_ticket(ticket)
    }

    /// As [`Self::claim`], for a waiter of the acting session alone.
    #[cold]
    pub(crate) fn claim_own(&mut self, ticket: Ticket) -> Option<Grant> {
        self.find_unclaimed(ticket)?;
        let now = self.now();
        if !self.owners.as_mut()?.leaves(ticket) {
            return None;
        }
        let grant = self.take_unclaimed(ticket)?;
        self.owners.as_mut()?.give_out(ticket, grant.weight(), now);
        Some(grant.with_ticket(ticket))
    }

    /// Whether a permit that is returned is out. In a machine with sessions it then counts as returned. In one
    /// without, any permit may be.
    #[inline]
    pub(crate) fn is_out(&mut self, permit: &Grant) -> bool {
        self.owners.is_none() || self.take_back(permit)
    }

    #[cold]
    fn take_back(&mut self, permit: &Grant) -> bool {
        let Some(owners) = &mut self.owners else { return true };
        let index = permit.ticket().and_then(|ticket| owners.find_out(ticket));
        let own = index.filter(|index| owners.out[*index].session == owners.acting);
        own.map(|index| owners.out.remove(index)).is_some()
    }

    /// Everything that this machine holds is as another session has left it in `after`. The values of the acting
    /// session's waiters are kept; `waiter` makes those of the others. Returns the acting session's waiters that are no
    /// longer in the queue.
    pub(crate) fn move_to(&mut self, mut after: Self) -> Vec<Moved<T>> {
        let acting = self.acting();
        after.closed = self.closed;
        if let (Some(owners), Some(acting)) = (&mut after.owners, acting) {
            owners.acting = acting;
        }
        let before = core::mem::replace(self, after);
        let owned = |ticket| before.owner(ticket) == acting;
        let own: Vec<(Ticket, u64)> = before
            .queue
            .waiting()
            .filter(|(ticket, _)| acting.is_some() && owned(*ticket))
            .collect();
        let mut values = before.queue;
        let mut moved = Vec::new();
        for (ticket, weight) in own {
            let Some(waiter) = values.cancel(ticket) else { continue };
            let is_still_own = self.owner(ticket) == acting;
            match self.queue.waiter_mut(ticket) {
                Some(place) if is_still_own => *place = waiter,
                _ => moved.push(Moved { ticket, weight, waiter }),
            }
        }
        moved
    }
}
