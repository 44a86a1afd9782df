//! A limit that is kept: 25 calls at 5 in any 100 ms, one after another.
//!
//! `cargo run --example basic`

use std::time::{Duration, Instant};

use strict_rate_limiter::{Pushed, RateLimiter};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limiter = RateLimiter::new(5, Duration::from_millis(100))?;
    let begin = Instant::now();

    println!("acquire: a permit is held while the call lasts");
    for call in 1..=15 {
        let permit = limiter.acquire().await?;
        println!("  call {call:2} at {:3} ms", begin.elapsed().as_millis());
        permit.complete();
    }

    println!("run: the limiter waits for a permit and runs the call here");
    let answer = limiter.run(async { "the answer" }).await?;
    println!("  {answer} at {} ms", begin.elapsed().as_millis());

    println!("push: the call runs here if it is granted at once, else later");
    for call in 1..=9 {
        let task = move || async move {
            println!("  pushed call {call} runs at {} ms", begin.elapsed().as_millis());
        };
        match limiter.push(task).await? {
            Pushed::Ran(()) => println!("  pushed call {call} has run"),
            Pushed::Queued(_) => println!("  pushed call {call} is queued"),
        }
    }
    limiter.close();
    limiter.drained().await;
    println!("drained after {} ms: {limiter:?}", begin.elapsed().as_millis());
    Ok(())
}
