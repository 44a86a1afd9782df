//! Permits and tickets as plain numbers: for callers that store them elsewhere, such as in another
//! language, and for tests.
//!
//! Any number can be passed. Each function says what the machine does with one that is wrong.

use crate::types::{Grant, SessionId, Ticket};

/// A permit that was granted earlier, made again from its weight.
///
/// The machine cannot tell it from the permit that it granted. So it accepts the number only as far as
/// it can be true, and holds too much rather than too little:
///
/// * Returned while no permit is out, it was never granted or is returned twice. It frees nothing, and
///   its usage counts as a completion.
/// * Heavier than the running tasks allow, it frees no more than one permit can hold: the other
///   permits that are out keep 1 unit each, and granted or abandoned tasks whose permits are not out
///   keep their full weights.
/// * Lighter than the permit that it stands for, it leaves the difference held for as long as the
///   machine exists.
/// * Returned instead of another permit that is still out, it ends that permit's task.
pub const fn grant(weight: u64) -> Grant {
    Grant::of_weight(weight)
}

/// A ticket from its number. A machine ignores tickets that it never gave out.
pub const fn ticket(number: u64) -> Ticket {
    Ticket(number)
}

/// A ticket as a plain number, as [`State`](crate::State) writes it.
pub const fn ticket_number(ticket: Ticket) -> u64 {
    ticket.0
}

/// The permit with this ticket, made again: for a machine that has [sessions](crate::Machine::open_session). There it is
/// known whether the permit is out, and whose it is; the weight is that of the permit.
pub fn permit(ticket: Ticket, weight: u64) -> Grant {
    Grant::of_weight(weight).with_ticket(ticket)
}

/// A session from its number.
pub const fn session(number: u64) -> SessionId {
    SessionId(number)
}

/// A session as a plain number, as [`State`](crate::State) writes it.
pub const fn session_number(session: SessionId) -> u64 {
    session.0
}
