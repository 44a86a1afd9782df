//! The machine and the oracle side by side, taken through the same operations.

use strict_rate_limiter_core::limit::RATE_MAX;
use strict_rate_limiter_core::{
    Config, ConfigError, Decision, EnqueueError, Enqueued, Grant, Limit, Machine, Record,
    RequestError, Ticket, TicketStatus, TryGrantError, audit, raw,
};

use super::Oracle;

/// Something that an owner of a machine can do. Where it says `which`, that is out of however many
/// there are.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Advance(u64),
    ClockGoesBack(u64),
    Enqueue(u64),
    TryGrant(u64),
    GrantAtOnce(u64),
    Claim(usize),
    CancelWaiting(usize),
    CancelGranted(usize),
    Undo(usize),
    Complete {
        which: usize,
        actual: Option<u64>,
        bound: u64,
    },
    Abandon(usize),
    /// A permit that was never granted comes back while none is out, so that it can be known.
    CompleteMadeUp {
        weight: u64,
        actual: Option<u64>,
        bound: u64,
    },
    UndoMadeUp(u64),
    Pause(u64),
    Resume,
    Reconcile {
        which: usize,
        used: u64,
        bound: u64,
    },
    SetLimits {
        limits: Vec<Limit>,
        bound: u64,
    },
    SetConcurrency(usize),
    WriteDownAndReadBack,
    Close,
    Abort,
}

impl Op {
    /// A task that overspends breaks the window by its own doing: the same without that.
    pub(crate) fn without_overspend(&self) -> Self {
        match *self {
            Self::Complete { which, bound, .. } => Self::Complete { which, actual: None, bound },
            ref op => op.clone(),
        }
    }
}

/// The machine, the oracle, and what the tasks themselves would know.
pub(crate) struct Pair {
    pub(crate) machine: Machine<u64>,
    pub(crate) oracle: Oracle,
    /// Tickets granted and not claimed, with the oracle's number of the task.
    granted: Vec<(Ticket, usize)>,
    /// Permits in hand.
    permits: Vec<(Grant, usize)>,
    accepted: Vec<u64>,
    closed: bool,
    /// The limits have changed since the beginning.
    has_new_limits: bool,
    /// The machine has the settings that it was made with.
    is_as_made: bool,
}

impl Pair {
    pub(crate) fn new(config: Config) -> Self {
        let oracle = Oracle::new(&config);
        let machine = Machine::new(config).expect("a valid configuration");
        Self {
            machine,
            oracle,
            granted: vec![],
            permits: vec![],
            accepted: vec![],
            closed: false,
            has_new_limits: false,
            is_as_made: true,
        }
    }

    pub(crate) fn step(&mut self, op: &Op) {
        let now = self.oracle.now;
        match *op {
            Op::Advance(ns) => self.oracle.now += ns,
            Op::ClockGoesBack(ns) => {
                // The machine has seen `now` already: an earlier reading changes nothing.
                let before = self.machine.state();
                self.machine.stats(now.saturating_sub(ns));
                assert_eq!(self.machine.state(), before);
            }
            Op::Enqueue(weight) => self.enqueue(weight),
            Op::TryGrant(weight) => self.try_grant(weight),
            Op::GrantAtOnce(weight) => {
                let expected = self.may_grant_at_once(weight);
                let permit = self.machine.grant_at_once(weight);
                assert_eq!(permit.is_some(), expected, "granting at once");
                if let Some(permit) = permit {
                    self.permits.push((permit, self.oracle.grant(weight)));
                }
            }
            Op::Claim(which) => {
                if let Some(index) = pick(which, self.granted.len()) {
                    let (ticket, task) = self.granted.remove(index);
                    assert_eq!(self.machine.status(ticket), TicketStatus::Granted);
                    let permit = self.machine.claim(ticket).expect("granted and not claimed");
                    assert_eq!(permit.weight(), self.oracle.tasks[task].weight);
                    assert_eq!(self.machine.claim(ticket), None, "a permit is claimed once");
                    assert_eq!(self.machine.status(ticket), TicketStatus::Gone);
                    self.permits.push((permit, task));
                }
            }
            Op::CancelWaiting(which) => {
                if let Some(index) = pick(which, self.oracle.queue.len()) {
                    let (ticket, _) = self.oracle.queue.remove(index);
                    let left = if which % 2 == 0 {
                        self.machine.cancel_where(|waiter| *waiter == ticket).pop()
                    } else {
                        self.machine.cancel(raw::ticket(ticket))
                    };
                    assert_eq!(left, Some(ticket));
                }
            }
            Op::CancelGranted(which) => {
                if let Some(index) = pick(which, self.granted.len()) {
                    let (ticket, task) = self.granted.remove(index);
                    assert_eq!(self.machine.cancel(ticket), None);
                    self.forget(task);
                }
            }
            Op::Undo(which) => {
                if let Some(index) = pick(which, self.permits.len()) {
                    let (permit, task) = self.permits.remove(index);
                    self.machine.undo(permit);
                    self.forget(task);
                }
            }
            Op::Complete { which, actual, bound } => self.complete(which, actual, bound),
            Op::Abandon(which) => self.abandon(which),
            Op::CompleteMadeUp { weight, actual, bound } => {
                self.complete_made_up(weight, actual, bound);
            }
            Op::UndoMadeUp(weight) => self.undo_made_up(weight),
            Op::Pause(ns) => {
                self.machine.pause_until(now + ns);
                self.oracle.paused_until = self.oracle.paused_until.max(now + ns);
            }
            Op::Resume => {
                self.machine.resume();
                self.oracle.paused_until = 0;
            }
            Op::Reconcile { which, used, bound } => {
                let limits = self.machine.config().limits.len();
                let which = pick(which, limits).expect("a machine has at least one limit");
                self.reconcile(which, used, bound);
            }
            Op::SetLimits { ref limits, bound } => self.set_limits(limits, bound),
            Op::SetConcurrency(tasks) => {
                self.machine.set_concurrency(tasks).expect("in range");
                self.is_as_made &= self.oracle.config.concurrency == tasks;
                self.oracle.config.concurrency = tasks;
            }
            Op::WriteDownAndReadBack => {
                let state = self.machine.state();
                self.machine =
                    Machine::restore(&state, raw::ticket_number).expect("a state it was in");
                assert_eq!(self.machine.state(), state, "the state round-trips");
                self.is_as_made = true;
            }
            Op::Close => {
                self.machine.close();
                self.closed = true;
            }
            Op::Abort => {
                let left: Vec<u64> = self.machine.abort().collect();
                let queued: Vec<u64> =
                    self.oracle.queue.drain(..).map(|(ticket, _)| ticket).collect();
                assert_eq!(left, queued, "all waiters are returned, in order");
                self.closed = true;
            }
        }
        self.drive();
        self.check();
    }

    /// Audits all tasks, for histories in which no task exceeds its reservation.
    pub(crate) fn no_window_overflowed(&self) {
        let until = self.oracle.now;
        let records = self.oracle.tasks.iter().map(|task| Record {
            start: task.granted,
            end: task.ended.map_or(until, |(ended, _)| ended),
            weight: task.weight,
        });
        let records: Vec<Record> = records.collect();
        if self.has_new_limits {
            // Each grant was held to the whole history under the limits of its time, in `drive`.
            return;
        }
        for (limit, _) in &self.oracle.limits {
            let audit = audit::check(limit, &records).expect("nothing ends before it starts");
            assert!(audit.is_clean(), "{audit:?}");
        }
    }

    fn forget(&mut self, task: usize) {
        // As if it had never been granted.
        self.oracle.tasks.remove(task);
        let granted = self.granted.iter_mut().map(|(_, other)| other);
        for other in granted.chain(self.permits.iter_mut().map(|(_, other)| other)) {
            *other -= usize::from(*other > task);
        }
    }

    fn may_grant_at_once(&self, weight: u64) -> bool {
        let is_queue_empty = self.oracle.queue.is_empty();
        !self.closed
            && is_queue_empty
            && self.oracle.could_ever_run(weight)
            && self.oracle.may_grant(weight, self.oracle.now)
    }

    fn enqueue(&mut self, weight: u64) {
        let next = self.machine.state().next_ticket;
        match self.machine.enqueue(weight, next) {
            Ok(Enqueued { ticket, accepted, .. }) => {
                assert_eq!(raw::ticket_number(ticket), next);
                assert_eq!(accepted, self.oracle.queue.len() < self.oracle.config.queue_capacity);
                self.oracle.queue.push((next, weight));
            }
            Err(EnqueueError::Request(_)) => assert!(!self.oracle.could_ever_run(weight)),
            Err(error) => {
                assert_eq!(error, EnqueueError::Closed);
                assert!(self.closed);
            }
        }
    }

    fn try_grant(&mut self, weight: u64) {
        let now = self.oracle.now;
        let expected = self.may_grant_at_once(weight);
        let opening = self.machine.opening(now, weight);
        let answer = self.machine.try_grant(now, weight);
        assert_eq!(answer.is_ok(), expected, "{answer:?}");
        match &answer {
            Ok(_) => assert_eq!(opening, Ok(Some(now))),
            Err(TryGrantError::Request(error)) => assert_eq!(opening, Err(error.clone())),
            Err(TryGrantError::Busy { not_before }) if self.oracle.queue.is_empty() => {
                assert_eq!(opening, Ok(*not_before));
            }
            Err(TryGrantError::Busy { .. }) => assert_eq!(opening, Ok(None)),
            Err(_) => {}
        }
        match answer {
            Ok(permit) => self.permits.push((permit, self.oracle.grant(weight))),
            Err(TryGrantError::Request(_)) => assert!(!self.oracle.could_ever_run(weight)),
            Err(TryGrantError::Closed) => assert!(self.closed),
            Err(TryGrantError::Busy { not_before: Some(at) }) => {
                let weight = self.oracle.queue.first().map_or(weight, |(_, weight)| *weight);
                assert!(at == now || !self.oracle.may_grant(weight, at - 1), "{at} is too late");
            }
            Err(_) => {}
        }
    }

    fn abandon(&mut self, which: usize) {
        let Some(index) = pick(which, self.permits.len()) else { return };
        let (permit, task) = self.permits.remove(index);
        let (now, weight) = (self.oracle.now, permit.weight());
        self.machine.abandon(permit, now, now);
        let grace = self.machine.config().abandon_grace_ns;
        let ends = (now + grace).max(self.oracle.last_end());
        self.oracle.tasks[task].ended = Some((ends, weight));
    }

    fn complete(&mut self, which: usize, actual: Option<u64>, bound: u64) {
        let Some(index) = pick(which, self.permits.len()) else { return };
        let now = self.oracle.now;
        let (permit, task) = self.permits.remove(index);
        let reserved = permit.weight();
        let used = actual.unwrap_or(reserved);
        let excess = self.machine.complete(permit, now, now + bound, actual);
        assert_eq!(excess, used.saturating_sub(reserved));
        // Within the error bound the task counts as ended, and its units are held from the latest end.
        self.oracle.tasks[task].ended = Some((self.stamped(bound), used));
    }

    fn set_limits(&mut self, limits: &[Limit], bound: u64) {
        let now = self.oracle.now;
        let paced = self.oracle.config.paced;
        if paced && limits.iter().all(|limit| limit.units(2) == 2) {
            let before = self.machine.state();
            let refused = self.machine.set_limits(now, now, limits.iter().copied());
            assert_eq!(refused.unwrap_err(), ConfigError::PacedWithoutTaskLimit);
            assert_eq!(self.machine.state(), before, "nothing has changed");
            return;
        }
        let refused = self.machine.set_limits(now, now + bound, limits.iter().copied());
        let refused = refused.expect("in range");
        if limits == self.oracle.config.limits {
            assert_eq!(refused, []);
            return;
        }
        (self.has_new_limits, self.is_as_made) = (true, false);
        let at = self.stamped(bound);
        let leave = self.oracle.set_limits(limits.to_vec(), now, at);
        let left: Vec<u64> = refused.iter().map(|refused| refused.waiter).collect();
        assert_eq!(left, leave, "in the order of the queue");
        for refused in refused {
            assert_eq!(self.machine.status(refused.ticket), TicketStatus::Gone);
            assert!(matches!(refused.error, RequestError::TooHeavy { .. }));
        }
    }

    fn complete_made_up(&mut self, weight: u64, actual: Option<u64>, bound: u64) {
        if !self.permits.is_empty() {
            return;
        }
        let now = self.oracle.now;
        let used = actual.unwrap_or(weight);
        let permit = raw::grant(weight);
        assert_eq!(self.machine.complete(permit, now, now + bound, actual), used);
        let at = self.stamped(bound);
        for (which, (limit, _)) in self.oracle.limits.clone().into_iter().enumerate() {
            // No limit is over this, so more would change no decision.
            self.oracle.use_elsewhere(which, at, limit.units(used).min(RATE_MAX));
        }
    }

    fn undo_made_up(&mut self, weight: u64) {
        if self.permits.is_empty() {
            let before = self.machine.state();
            self.machine.undo(raw::grant(weight));
            assert_eq!(self.machine.state(), before, "nothing to undo");
        }
    }

    fn reconcile(&mut self, which: usize, used: u64, bound: u64) {
        let now = self.oracle.now;
        let (limit, _) = self.oracle.limits[which];
        let known = self.oracle.completed(which, now);
        let added = self.machine.reconcile(now, now + bound, which, used);
        assert_eq!(added, used.min(limit.rate()).saturating_sub(known), "what is not known of");
        if added > 0 {
            let at = self.stamped(bound);
            self.oracle.use_elsewhere(which, at, added);
        }
    }

    /// The machine's stamp of the latest completion: the end of the clock's error bound. The oracle's time
    /// goes on from there, and so do graces that end within the bound.
    fn stamped(&mut self, bound: u64) -> u64 {
        let now = self.oracle.now;
        let at = (now + bound).max(self.machine.state().last_end);
        self.oracle.now = at;
        let others = self.oracle.tasks.iter_mut().filter_map(|task| task.ended.as_mut());
        for (ended, _) in others.filter(|(ended, _)| (now + 1..at).contains(ended)) {
            *ended = at;
        }
        at
    }

    /// Polls until nothing more is decided, and holds every decision against the oracle.
    fn drive(&mut self) {
        loop {
            let now = self.oracle.now;
            let head = self.oracle.queue.first().copied();
            match self.machine.poll(now) {
                Decision::Grant { ticket, waiter } => {
                    let (first, weight) = head.expect("only a waiter is granted");
                    assert_eq!(
                        (raw::ticket_number(ticket), waiter),
                        (first, first),
                        "first in, first out"
                    );
                    assert!(self.oracle.may_grant(weight, now), "the law forbids this grant");
                    self.oracle.queue.remove(0);
                    let task = self.oracle.grant(weight);
                    assert!(self.oracle.keeps_the_law(now), "the whole history says no");
                    self.granted.push((ticket, task));
                }
                Decision::Accept { ticket } => {
                    let at = self
                        .oracle
                        .queue
                        .iter()
                        .position(|(t, _)| *t == raw::ticket_number(ticket));
                    assert!(at.expect("accepted in the queue") < self.oracle.config.queue_capacity);
                    assert!(!self.accepted.contains(&raw::ticket_number(ticket)), "accepted once");
                    self.accepted.push(raw::ticket_number(ticket));
                }
                Decision::LookAgainAt(at) => {
                    assert!(at > now);
                    let Some((_, weight)) = head else {
                        assert_eq!(Some(at), self.oracle.next_known_end());
                        return;
                    };
                    assert!(!self.oracle.may_grant(weight, at - 1), "granted too late");
                    if self.oracle.next_known_end().is_none() {
                        assert!(self.oracle.may_grant(weight, at), "{at} is too early to look");
                    }
                    return;
                }
                Decision::WaitForCompletion => {
                    let (_, weight) = head.expect("the queue is not empty");
                    assert_eq!(self.oracle.next_known_end(), None);
                    assert!(!self.oracle.may_grant(weight, u64::MAX / 2));
                    return;
                }
                Decision::Idle => {
                    assert_eq!(head, None);
                    assert_eq!(self.oracle.next_known_end(), None);
                    return;
                }
                decision => panic!("{decision:?}"),
            }
        }
    }

    /// What must hold between any two operations.
    fn check(&mut self) {
        let now = self.oracle.now;
        let stats = self.machine.stats(now);
        assert_eq!(stats.queued, self.oracle.queue.len());
        assert_eq!(stats.running, self.oracle.running(now));
        assert_eq!(self.machine.is_drained(), stats.queued == 0 && stats.running == 0);
        assert_eq!(self.machine.load(), (stats.running, stats.queued));
        assert_eq!(self.machine.is_closed(), self.closed);
        let queue = self.oracle.queue.iter().map(|(ticket, _)| *ticket);
        assert!(self.machine.waiters().copied().eq(queue), "all waiters, in order");
        let capacity = self.oracle.config.queue_capacity;
        for (position, (ticket, _)) in self.oracle.queue.iter().enumerate() {
            let expected = TicketStatus::Queued { accepted: position < capacity };
            assert_eq!(self.machine.status(raw::ticket(*ticket)), expected);
            assert_eq!(self.machine.waiter_mut(raw::ticket(*ticket)), Some(&mut ticket.clone()));
        }
        let head = self.oracle.queue.first().map(|(ticket, _)| raw::ticket(*ticket));
        assert_eq!(self.machine.head(), head);
        let full = stats.running >= self.oracle.config.concurrency;
        let awaits_completion = full && self.oracle.next_known_end().is_none();
        assert_eq!(self.machine.awaits_completion(), awaits_completion);
        for (which, held) in stats.held.iter().enumerate() {
            let real = self.oracle.held(which, now);
            let (limit, _) = self.oracle.limits[which];
            assert_eq!((held.limit, held.units), (limit, real));
        }
        assert_eq!(self.machine.backoff_ns(now), self.oracle.backoff_ns());
        let is_like_new = (0..self.oracle.limits.len())
            .all(|which| self.oracle.held(which, now) == 0)
            && stats.running == 0
            && stats.queued == 0
            && now >= self.oracle.paused_until
            && !self.closed
            && self.is_as_made;
        assert_eq!(
            self.machine.is_like_new(now),
            is_like_new,
            "a new machine would decide the same"
        );
    }
}

fn pick(which: usize, len: usize) -> Option<usize> {
    (len > 0).then(|| which % len)
}
