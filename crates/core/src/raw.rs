//! Permits and tickets as plain numbers: for a front that keeps them elsewhere, such as in another
//! language, and for tests.
//!
//! Everything here can be made up. What the machine makes of that is said at each function.

use crate::types::{Grant, Ticket};

/// A permit that stands for one granted earlier, whose weight a front kept as a number.
///
/// The machine cannot tell such a permit from the one that it granted, so it trusts the number
/// as far as it can be true, and errs on the side of holding too much:
///
/// * One that comes back while no permit is out was never granted, or comes twice. It frees
///   nothing; what it is said to have used counts as a completion.
/// * One heavier than what is out frees no more than a single permit can hold there: the other
///   permits that are out keep 1 unit each, and granted or abandoned tasks whose permits are not
///   out keep all that they hold.
/// * One lighter than the permit it stands for leaves the difference held for as long as the
///   machine lives.
///
/// One that comes back in place of a permit that is still out ends that permit's task for the
/// machine, which has no way to know better.
pub const fn grant(weight: u64) -> Grant {
    Grant::of_weight(weight)
}

/// The ticket that a plain number stands for. A ticket that was never handed out is unknown to every
/// machine, and harmless.
pub const fn ticket(number: u64) -> Ticket {
    Ticket(number)
}

/// A ticket as a plain number, as [`State`](crate::State) writes it.
pub const fn ticket_number(ticket: Ticket) -> u64 {
    ticket.0
}
