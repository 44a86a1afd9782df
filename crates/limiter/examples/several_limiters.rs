//! Several limiters side by side: each keeps its own limit, and none waits for another.
//!
//! `cargo run --example several_limiters`

use std::time::{Duration, Instant};

use strict_rate_limiter::RateLimiter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let begin = Instant::now();
    let services = [("search", 10, 4), ("billing", 3, 1), ("mail", 5, 2)];
    let mut callers = vec![];
    for (name, rate, concurrency) in services {
        let limiter = RateLimiter::builder()
            .limit(strict_rate_limiter::Limit::tasks(rate, Duration::from_millis(200))?)
            .concurrency(concurrency)
            .build()?;
        println!("{name}: {} with {concurrency} at once", limiter.limits()[0]);
        for call in 1..=8 {
            let limiter = limiter.clone();
            callers.push(tokio::spawn(async move {
                let ran = limiter.run(async {
                    println!("{:4} ms  {name} call {call}", begin.elapsed().as_millis());
                    tokio::time::sleep(Duration::from_millis(5)).await;
                });
                ran.await.expect("it is not closed");
            }));
        }
    }
    for caller in callers {
        caller.await?;
    }
    println!("all done after {} ms", begin.elapsed().as_millis());
    Ok(())
}
