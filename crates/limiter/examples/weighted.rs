//! Requests *and* tokens: both limits hold, tokens are reserved by an estimate and settled by what
//! was really used.
//!
//! `cargo run --example weighted`

use std::time::Instant;

use strict_rate_limiter::RateLimiter;

/// Estimated and actual tokens of each request.
const REQUESTS: [(u64, u64); 8] = [
    (300, 120),
    (300, 280),
    (300, 350), // More than it reserved.
    (500, 90),
    (200, 200),
    (200, 10),
    (900, 640),
    (100, 100),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limiter = RateLimiter::builder()
        .limit("4/200ms".parse()?)
        .limit("1000w/200ms".parse()?)
        .concurrency(2)
        .build()?;
    let begin = Instant::now();
    for (estimated, actual) in REQUESTS {
        let permit = limiter.request().weight(estimated).acquire().await?;
        let at = begin.elapsed().as_millis();
        let excess = permit.complete_with(actual);
        let held: Vec<u64> = limiter.stats().held.iter().map(|held| held.units).collect();
        print!("{at:4} ms: reserved {estimated:3} tokens, used {actual:3}; ");
        print!("held now: {} requests, {} tokens", held[0], held[1]);
        println!("{}", if excess > 0 { format!(" ({excess} over)") } else { String::new() });
    }
    let error = limiter.request().weight(1_001).acquire().await.unwrap_err();
    println!("1001 tokens at once: {error}");
    Ok(())
}
