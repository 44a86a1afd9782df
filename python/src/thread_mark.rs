//! Which thread this is.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tells threads apart, also from those that have ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadMark(u64);

impl ThreadMark {
    /// This thread.
    #[inline]
    pub(crate) fn here() -> Self {
        /// 0 for a thread that has no number yet.
        const UNKNOWN: u64 = 0;
        static NEXT: AtomicU64 = AtomicU64::new(UNKNOWN + 1);
        thread_local!(static HERE: Cell<u64> = const { Cell::new(UNKNOWN) });
        HERE.with(|here| {
            if here.get() == UNKNOWN {
                here.set(NEXT.fetch_add(1, Ordering::Relaxed));
            }
            Self(here.get())
        })
    }
}
