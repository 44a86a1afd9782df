//! Waiting where the system has no room for another process now: no descriptor, no process or no memory.
//! Nothing is used up by that: the start is tried again.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::status_line::StatusLine;

/// How long until the first new try, and the longest after many. One that ends is a reason as well.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(1);

/// How long it may last before it is told, and how often it is told after that.
const TELL_AFTER: Duration = Duration::from_secs(5);
const TELL_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct SpawnBackoff {
    ended: Notify,
    /// When the system was first found without room, if nothing has ended since.
    since: Cell<Option<Instant>>,
    told: Cell<Option<Instant>>,
}

impl SpawnBackoff {
    /// A process that was started has ended: another one may have room.
    pub(crate) fn process_ended(&self) {
        self.since.set(None);
        self.ended.notify_one();
    }

    /// Waits before the start is tried again, after so many tries.
    pub(crate) async fn wait(&self, error: &io::Error, tries: u32, status_line: &StatusLine) {
        let now = Instant::now();
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        if now - since >= TELL_AFTER
            && self.told.get().is_none_or(|told| told < since || now - told >= TELL_EVERY)
        {
            self.told.set(Some(now));
            status_line
                .tell(format_args!("no command can be started now: {error}; it is tried again"));
        }
        let delay = FIRST.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST);
        tokio::select! {
            () = self.ended.notified() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}
