//! What any state that is read back has to hold to, damaged or not.
//!
//! Used by the tests, and by the fuzzing targets.

use strict_rate_limiter_core::{Decision, Machine, State};

/// Whatever a restored machine grants from now on, with nothing ever completing, stays in the law.
pub(crate) fn grants_stay_within_the_law(state: &State) {
    let Ok(mut machine) = Machine::restore(state, |_| ()) else { return };
    for now in [state.now, state.now.saturating_add(50), u64::MAX - 1, u64::MAX] {
        while let Decision::Grant { .. } | Decision::Accept { .. } = machine.poll(now) {}
        while machine.try_grant(now, 1).is_ok() {}
        let stats = machine.stats(now);
        assert!(stats.running <= state.config.concurrency.max(state.running));
        for (held, before) in stats.held.iter().zip(state.held()) {
            assert!(held.units <= held.limit.rate().max(before), "{held:?}");
        }
    }
}
