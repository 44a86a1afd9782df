//! What was used without a permit of this machine's: by others, before it began, or as a permit says
//! that was made up. It only ever adds to what is held.

use crate::machine::Machine;

impl<T> Machine<T> {
    /// The protected system says that `used` units of a limit (by its place in the configuration)
    /// are in use. What has not completed here it may not have counted yet; so what it has counted
    /// beyond the completions in this window was used by somebody else, and counts as having
    /// completed at `ended_at`. Never more than the rate is counted, and nothing is ever taken back:
    /// this only tightens. Returns the units that were added. Times as in [`Self::complete`].
    ///
    /// # Panics
    ///
    /// If there is no such limit.
    pub fn reconcile(&mut self, now: u64, ended_at: u64, limit: usize, used: u64) -> u64 {
        assert!(limit < self.config.limits.len(), "there is no limit {limit}");
        self.advance(now);
        let window = &mut self.windows[limit];
        let elsewhere = used.min(window.limit().rate()).saturating_sub(window.completed());
        if elsewhere > 0 {
            self.last_end = self.last_end.max(ended_at.max(self.now));
            window.count(elsewhere, self.last_end);
        }
        elsewhere
    }

    /// Reads a completion from before this machine began back into its windows, so that a restart
    /// never bursts. Call it before anything is granted, oldest first: a completion earlier than
    /// the one before it is held as long as that one. One in the future is believed as well: it, and
    /// whatever completes until then, is held from then on.
    pub fn remember(&mut self, ended_at: u64, weight: u64) {
        self.last_end = self.last_end.max(ended_at);
        for window in &mut self.windows {
            window.complete_unknown(weight, self.last_end);
            window.expire(self.now);
        }
    }

    /// A task that no permit was granted for has ended.
    #[cold]
    pub(crate) fn record_unknown(&mut self, actual: u64, ended_at: u64) -> u64 {
        self.last_end = self.last_end.max(ended_at);
        self.completed = self.completed.saturating_add(1);
        for window in &mut self.windows {
            window.complete_unknown(actual, self.last_end);
        }
        actual
    }
}
