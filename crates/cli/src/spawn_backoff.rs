//! Waits with growing delays when the system lacks descriptors, processes or memory for another process. The start is
//! then tried again, and uses up neither the item nor its permit.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::status_line::StatusLine;

/// The delay before the first new try, and the longest delay. A process that ends causes a try at once.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(1);

/// The time before the first message, and between further ones.
const TELL_AFTER: Duration = Duration::from_secs(5);
const TELL_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct SpawnBackoff {
    ended: Notify,
    /// The first failed start since a process last ended.
    since: Cell<Option<Instant>>,
    told: Cell<Option<Instant>>,
}

impl SpawnBackoff {
    /// A process has ended, so that another may be able to start.
    pub(crate) fn process_ended(&self) {
        self.since.set(None);
        self.ended.notify_one();
    }

    /// Waits before the next try; `tries` is the number of failed tries.
    pub(crate) async fn wait(&self, error: &io::Error, tries: u32, status_line: &StatusLine) {
        let now = Instant::now();
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        if now - since >= TELL_AFTER
            && self.told.get().is_none_or(|told| told < since || now - told >= TELL_EVERY)
        {
            self.told.set(Some(now));
            status_line.tell(format_args!("cannot start a command now: {error}; trying again"));
        }
        let delay = FIRST.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST);
        tokio::select! {
            () = self.ended.notified() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}
