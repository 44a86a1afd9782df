//! The right to run one task, and how a task ends.

use strict_rate_limiter_core::Grant;

use crate::fork::forks;

/// The right to run one task.
#[must_use = "a permit that is not returned is held for ever"]
pub(crate) struct Hold {
    pub(super) grant: Grant,
    /// The process that it was granted in.
    pub(super) forks: u32,
    /// Which one it is, to a hook.
    pub(super) id: PermitId,
}

/// Tells the permits of a limiter that has a hook apart: an event's number, shortened, so that a permit is no larger for
/// it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PermitId(u32);

impl PermitId {
    #[expect(clippy::cast_possible_truncation, reason = "no two that are out are 4 billion apart")]
    pub(super) const fn new(event: u64) -> Self {
        Self(event as u32)
    }
}

impl Hold {
    pub(crate) fn weight(&self) -> u64 {
        self.grant.weight()
    }

    /// Whether it was granted in this process: what ran in the parent counts as ended in a forked child.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.forks == forks()
    }
}

/// How a task ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It returned or failed, with the weight it turned out to have, where that is known.
    Completed { actual: Option<u64> },
    /// It was dropped or cancelled: its call may still be on the wire.
    Cancelled,
}

impl Ending {
    /// As most do, with the weight it had reserved.
    pub(crate) const COMPLETED: Self = Self::Completed { actual: None };
}
