//! Measures one task of a user's program: a permit is acquired and dropped, in a crate of its own that is built as
//! users build theirs.
//!
//! `cargo run --release -p user-program` measures a plain release build, `cargo run --profile lto -p user-program` one
//! with link-time optimisation. Each line is a round: nanoseconds for each task with our limiter, then with governor
//! behind a tokio `Mutex`. The bench runs both builds, and writes the medians into `docs/bench.md`.

use std::error::Error;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota};
use strict_rate_limiter::RateLimiter;
use tokio::sync::Mutex;

const TASKS_A_SECOND: u32 = 1_000_000_000;
const ROUNDS: usize = 301;
const TASKS: u32 = 200_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let ours = RateLimiter::new(TASKS_A_SECOND.into(), Duration::from_secs(1))?;
    let quota = Quota::per_second(NonZeroU32::new(TASKS_A_SECOND).ok_or("no rate")?);
    let theirs = Mutex::new(DefaultDirectRateLimiter::direct(quota));
    for _ in 0..ROUNDS {
        let (ours, theirs) = (with_ours(&ours).await?, with_theirs(&theirs).await);
        println!("{ours:.2} {theirs:.2}");
    }
    Ok(())
}

#[inline(never)]
async fn with_ours(limiter: &RateLimiter) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    for _ in 0..TASKS {
        let _permit = limiter.acquire().await?;
    }
    Ok(ns_each(start))
}

#[inline(never)]
async fn with_theirs(limiter: &Mutex<DefaultDirectRateLimiter>) -> f64 {
    let start = Instant::now();
    for _ in 0..TASKS {
        let one_at_a_time = limiter.lock().await;
        one_at_a_time.until_ready().await;
    }
    ns_each(start)
}

fn ns_each(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / f64::from(TASKS)
}
