//! Kills a whole process group: SIGTERM, then SIGKILL for the rest.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// The time between SIGTERM and SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(1);

/// How often we check whether the whole group has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Sends SIGTERM to a group, and after [`KILL_AFTER`] SIGKILL, even if its leader has died by then. The leader must
/// be a child that is not reaped before this returns: until then the kernel cannot reuse the group's id, so no
/// signal can reach another group.
pub(crate) async fn end(leader: Pid) {
    // An error means that the group has no process.
    let signal = |signal| {
        let _ = kill_process_group(leader, signal);
    };
    signal(Signal::TERM);
    // A stopped process does not act on SIGTERM.
    signal(Signal::CONT);
    let deadline = Instant::now() + KILL_AFTER;
    while Instant::now() < deadline && !(has_ended(leader) && is_alone(leader)) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    signal(Signal::KILL);
}

/// Whether a child has ended. Does not reap it.
fn has_ended(child: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(child), options), Ok(None))
}

/// Whether `/proc` shows that no process of the group lives except its leader. `false` if it cannot be read.
fn is_alone(leader: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let others = processes.flatten().filter(|process| {
        let name = process.file_name();
        let id = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        id.is_some_and(|id| id != leader)
    });
    let mut seen = 0;
    let mut stats = others.filter_map(|process| {
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        seen += 1;
        group_of_living(&stat)
    });
    let alone = !stats.any(|group| group == leader.as_raw_pid());
    drop(stats);
    alone && seen > 0
}

/// The group of a process that has not ended, from its line in `/proc`: `id (name) state parent group …`. The name
/// may contain any characters.
fn group_of_living(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_by_its_line_whatever_its_name() {
        assert_eq!(group_of_living("12 (sleep) S 1 77 77 0"), Some(77));
        assert_eq!(group_of_living("12 (a) Z (b) S 1 77 77 0"), Some(77));
        assert_eq!(group_of_living("12 (sleep) Z 1 77 77 0"), None, "it has ended");
        assert_eq!(group_of_living(""), None);
    }
}
