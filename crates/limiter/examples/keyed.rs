//! A limit for each user: they do not wait for each other, and one has a limit of its own.
//!
//! `cargo run -p strict-rate-limiter --features keyed --example keyed`

use std::error::Error;
use std::time::{Duration, Instant};

use strict_rate_limiter::{KeyedRateLimiter, RateLimiter};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let common = RateLimiter::builder().limit("5/100ms".parse()?);
    let paying = RateLimiter::builder().limit("50/100ms".parse()?);
    let per_user = KeyedRateLimiter::builder(common).key("carol", paying).build()?;

    let start = Instant::now();
    let users = ["alice", "bob", "carol"].map(|user| {
        let per_user = per_user.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                per_user.run(&user, async { /* The call. */ }).await?;
            }
            println!("{user}: 20 calls in {:.1?}", start.elapsed());
            Ok::<(), strict_rate_limiter::AcquireError>(())
        })
    });
    for user in users {
        user.await??;
    }

    // A user with nothing in the window costs no memory.
    tokio::time::sleep(Duration::from_millis(110)).await;
    per_user.forget_idle();
    println!("{} users known", per_user.len());
    Ok(())
}
