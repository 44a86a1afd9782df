//! Refuses a run inside a command of another run under the same shared limit, if it would wait for that command for
//! ever. Where there is no `/proc`, nothing is noticed.

use std::collections::BTreeSet;
use std::fs;

use strict_rate_limiter::{Limit, Unit};
use strict_rate_limiter_shared::folder::Inspection;

use crate::error::Error;

const DEPTH_MAX: usize = 1_000;

/// A run waits for its command. So each of our ancestors that holds a permit holds it until we have ended.
pub(super) fn check(name: &str, seen: &Inspection) -> Result<(), Error> {
    let holders: BTreeSet<u32> = seen.holders.iter().filter_map(|one| one.process.id).collect();
    let outer = ancestors().filter(|id| holders.contains(id)).count() as u64;
    let of_tasks = seen.config.limits.iter().filter(|limit| limit.unit() == Unit::Task);
    let room = of_tasks.map(Limit::rate).chain([seen.config.concurrency as u64]).min();
    if outer == 0 || room.is_none_or(|room| room > outer) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "this is inside a command that runs under the shared limit `{name}` itself, and would wait for it for \
         ever: leave out --shared here, or let the limit allow more tasks at once"
    )))
}

/// The processes that have started this one, from its parent on.
fn ancestors() -> impl Iterator<Item = u32> {
    let parent = |id: &u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        parent_of(&stat).filter(|id| *id > 0)
    };
    // Processes that end and begin meanwhile cannot make it go round.
    std::iter::successors(parent(&std::process::id()), parent).take(DEPTH_MAX)
}

/// The parent of a process, from its line in `/proc`: `id (name) state parent …`. The name may contain any characters.
fn parent_of(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_whatever_the_name() {
        assert_eq!(parent_of("12 (a) 3 (b) S 1 77 77 0"), Some(1));
        assert_eq!(parent_of(""), None);
    }
}
