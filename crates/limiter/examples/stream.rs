//! A stream of work, four at a time, under a limit that holds whatever each takes.
//!
//! `cargo run -p strict-rate-limiter --features stream --example stream`

use std::error::Error;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use strict_rate_limiter::RateLimiter;
use strict_rate_limiter::stream::RateLimitStreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let limiter = RateLimiter::builder().limit("20/200ms".parse()?).concurrency(4).build()?;
    let start = Instant::now();
    let pages = stream::iter(1..=60_u64).rate_limited(&limiter);
    pages
        .for_each_concurrent(None, async |page| {
            let page = page.expect("the limiter is open");
            tokio::time::sleep(Duration::from_millis(*page % 7)).await; // The call.
            let page = page.complete();
            println!("{:>6.0?}  page {page}", start.elapsed());
        })
        .await;
    Ok(())
}
