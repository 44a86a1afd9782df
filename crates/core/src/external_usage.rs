//! Usage without a grant of this machine: by other clients, or under a grant that was made up. It only ever adds
//! held units.

use crate::machine::Machine;
use crate::windows::Windows;

impl<T> Machine<T> {
    /// Enters the protected system's count: it says that `used` units of a limit (by its position in the settings)
    /// are in use. Running tasks may not be in its count. Anything it reports beyond the completions in this window
    /// is other clients' usage, and counts as completed at `ended_at`. Counts at most the rate, and never takes
    /// units back: it only tightens. Returns the units that were added. Times as in [`Self::complete`].
    ///
    /// # Panics
    ///
    /// If there is no limit at that position.
    pub fn reconcile(&mut self, now: u64, ended_at: u64, limit: usize, used: u64) -> u64 {
        let windows = &mut self.windows;
        assert!(limit < windows.config.limits.len(), "there is no limit {limit}");
        windows.advance(now);
        let window = &windows.all[limit];
        let elsewhere = used.min(window.limit().rate()).saturating_sub(window.completed());
        if elsewhere > 0 {
            let stamp = windows.stamp(ended_at.max(windows.now));
            windows.all[limit].count_unknown(elsewhere, stamp);
        }
        elsewhere
    }
}

impl Windows {
    /// A task without a grant has ended.
    #[cold]
    pub(crate) fn complete_unknown(&mut self, actual: u64, ended_at: u64) -> u64 {
        let stamp = self.stamp(ended_at);
        self.completed = self.completed.saturating_add(1);
        for window in self.all.iter_mut() {
            window.complete_unknown(actual, stamp);
        }
        actual
    }
}
