//! Two ways to end: `close` lets what was accepted run, `abort` drops what is still queued.
//!
//! `cargo run --example shutdown`

use std::time::Duration;

use strict_rate_limiter::{Pushed, RateLimiter};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("close:");
    let limiter = RateLimiter::new(2, Duration::from_millis(50))?;
    let handles = push_five(&limiter).await?;
    limiter.close();
    println!("  a push after close: {}", limiter.push(|| async {}).await.unwrap_err());
    limiter.drained().await;
    report(handles).await;

    println!("abort:");
    let limiter = RateLimiter::new(2, Duration::from_millis(50))?;
    let handles = push_five(&limiter).await?;
    limiter.abort();
    limiter.drained().await;
    report(handles).await;
    Ok(())
}

async fn push_five(limiter: &RateLimiter) -> Result<Vec<Pushed<u32>>, Box<dyn std::error::Error>> {
    let mut pushed = vec![];
    for task in 1..=5 {
        pushed.push(limiter.push(move || async move { task }).await?);
    }
    Ok(pushed)
}

async fn report(pushed: Vec<Pushed<u32>>) {
    for (task, pushed) in (1..).zip(pushed) {
        match pushed.answer().await {
            Ok(answer) => println!("  task {task}: ran, and answered {answer}"),
            Err(error) => println!("  task {task}: {error}"),
        }
    }
}
