//! Measures a limiter for each key as people have it: 100 tasks a minute each, some of them in the window already.
//!
//! Each line `ns` is a round: the number of keys, then nanoseconds for each task with our keyed limiter and with
//! governor's. Each line `bytes` is what one key takes, counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use governor::{DefaultKeyedRateLimiter, Quota};
use strict_rate_limiter::{KeyedRateLimiter, RateLimiter};

const A_MINUTE: u32 = 100;

/// A thousand keys with half a window each, a million with a tenth: keys, tasks that each has in its window before,
/// tasks that each then runs on average, rounds. No key comes to its limit.
const SIZES: [(u32, u32, u32, usize); 2] = [(1_000, 50, 20, 101), (1_000_000, 10, 2, 3)];

/// How long ago the tasks ended that leave the windows before anything is measured: a log that has been in use for a
/// while has made its room.
const ABOUT_TO_EXPIRE: Duration = Duration::from_millis(59_990);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for (keys, held, tasks, rounds) in SIZES {
        for _ in 0..rounds {
            let (ours, theirs) = (ours(held)?, theirs()?);
            // All keys are made. What is about to expire has by the second time.
            for key in 0..keys.into() {
                ours.acquire(&key).await?.complete();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            for key in 0..keys.into() {
                ours.acquire(&key).await?.complete();
                theirs.until_key_ready(&key).await;
            }
            let start = Instant::now();
            for key in some_of(keys, tasks) {
                let _permit = ours.acquire(&key).await?;
            }
            let of_ours = ns_each(start, keys * tasks);
            let start = Instant::now();
            for key in some_of(keys, tasks) {
                theirs.until_key_ready(&key).await;
            }
            println!("ns {keys} {of_ours:.2} {:.2}", ns_each(start, keys * tasks));
        }
    }
    bytes().await
}

fn ours(held: u32) -> Result<KeyedRateLimiter<u64>, Box<dyn Error>> {
    let settings = RateLimiter::builder().limit(format!("{A_MINUTE}/1m").parse()?);
    let held_still = (0..held).map(|task| (Duration::from_millis(500 * u64::from(task)), 1));
    let past = held_still.chain((0..held.min(40)).map(|_| (ABOUT_TO_EXPIRE, 1)));
    Ok(KeyedRateLimiter::new(settings.history(past))?)
}

fn theirs() -> Result<DefaultKeyedRateLimiter<u64>, Box<dyn Error>> {
    let quota = Quota::per_minute(NonZeroU32::new(A_MINUTE).ok_or("no rate")?);
    Ok(DefaultKeyedRateLimiter::keyed(quota))
}

/// Keys in an order that caches cannot predict, the same at each call.
fn some_of(keys: u32, tasks: u32) -> impl Iterator<Item = u64> {
    let mut state = 1_u64;
    (0..keys * tasks).map(move |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 32) * u64::from(keys)) >> 32
    })
}

fn ns_each(start: Instant, tasks: u32) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / f64::from(tasks)
}

/// What one of many keys takes: with an empty window, after a task, with a full window; and one of governor's.
async fn bytes() -> Result<(), Box<dyn Error>> {
    const KEYS: usize = 100_000;
    let (ours, before) = (ours(0)?, BYTES.load(Ordering::Relaxed));
    let each = |before| (BYTES.load(Ordering::Relaxed) - before) / KEYS;
    for key in 0..KEYS as u64 {
        // Held, so that no key is forgotten.
        std::mem::forget(ours.limiter(&key));
    }
    println!("bytes ours, with an empty window {}", each(before));
    for (tasks, what) in [(1, "one task in its window"), (A_MINUTE - 1, "a full window")] {
        for key in 0..KEYS as u64 {
            for _ in 0..tasks {
                ours.acquire(&key).await?.complete();
            }
        }
        println!("bytes ours, with {what} {}", each(before));
    }
    let (theirs, before) = (theirs()?, BYTES.load(Ordering::Relaxed));
    for key in 0..KEYS as u64 {
        theirs.until_key_ready(&key).await;
    }
    println!("bytes governor {}", each(before));
    Ok(())
}

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with what it was called with; the count beside it touches no
// memory of the allocation.
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
