//! The memory of a waiting `acquire` beside the caller's own future, counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use strict_rate_limiter::RateLimiter;

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with what it was called with; the count beside
// it touches no memory of the allocation.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises about `pointer` and `layout` are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_waiting_acquire_takes_at_most_128_bytes_beside_its_future() {
    for waiters in [1_000, 40_000, 100_000] {
        let limiter = RateLimiter::builder().limit("1/1h".parse().unwrap()).build().unwrap();
        limiter.try_acquire().unwrap().complete();
        let mut waiting: Vec<_> = (0..waiters).map(|_| limiter.acquire()).collect();
        let before = BYTES.load(Ordering::Relaxed);
        for acquire in &mut waiting {
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(acquire).poll(&mut context).is_pending());
        }
        let each = (BYTES.load(Ordering::Relaxed) - before) / waiters;
        println!("{waiters} waiters: {each} bytes each");
        assert!(each <= 128, "{each} bytes");

        // Most of them leave from the middle, and the queue shrinks with them.
        waiting.drain(10..waiters - 10);
        let left = BYTES.load(Ordering::Relaxed).saturating_sub(before);
        assert!(left < 40_000, "{left} bytes for 20 waiters");
    }
}
