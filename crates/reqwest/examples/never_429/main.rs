//! The same 240 calls through three limiters, to a server that bans whoever overflows its window.
//!
//! `cargo run --release --example never_429 [CHART]`
//!
//! The server is real and stays on this machine: at most 20 calls in any 200 ms, each counted at some
//! moment after it came, as behind a network and a queue. Whoever is over gets a 429, and nothing but
//! 429s for as long as the ban lasts. All three limiters are told "20 every 200 ms", which is what the
//! server's documentation says, and may have 16 calls on their way at once.

mod chart;
mod server;

use std::error::Error;
use std::future::Future;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use strict_rate_limiter::RateLimiter;
use strict_rate_limiter_reqwest::RateLimit;
use tokio::sync::Semaphore;
use tower::{ServiceBuilder, ServiceExt, service_fn};

use server::{Counted, Server};

const RATE: u32 = 20;
const PER: Duration = Duration::from_millis(200);
const CALLS: usize = 240;
const AT_ONCE: usize = 16;

type Failure = Box<dyn Error + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = Result<StatusCode, Failure>> + Send>>;
/// Makes one call, when its limiter lets it.
type Caller = Box<dyn Fn(String) -> Answer + Send + Sync>;

struct Run {
    name: &'static str,
    counted: Vec<Counted>,
    fullest: usize,
    refused: usize,
    took: Duration,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let chart = std::env::args_os().nth(1).map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/never_429.svg")),
        PathBuf::from,
    );
    println!("{CALLS} calls through each, to a server that allows {RATE} in any {PER:?}\n");
    println!("{:<38} {:>5}  {:>14}  {:>6}", "", "429s", "fullest window", "took");
    let client = Client::builder().redirect(Policy::none()).no_proxy().build()?;
    let callers: [(&str, Caller); 3] = [
        ("governor", governor(client.clone())),
        ("tower rate_limit", tower(client)),
        ("strict-rate-limiter", ours()?),
    ];
    let mut runs = vec![];
    for (name, caller) in callers {
        let run = run(name, caller).await?;
        let Run { fullest, refused, took, .. } = run;
        println!("{name:<38} {refused:>5}  {fullest:>9} of {RATE}  {took:>5.1?}");
        runs.push(run);
    }
    chart::draw(&runs, &chart)?;
    println!("\nThe server's window over time: {}", chart.canonicalize()?.display());
    Ok(())
}

/// All of the calls at once; the limiter says when.
async fn run(name: &'static str, caller: Caller) -> Result<Run, Failure> {
    let server = Server::start(RATE as usize, PER).await?;
    let caller = Arc::new(caller);
    let start = Instant::now();
    let calls: Vec<_> = (0..CALLS)
        .map(|_| {
            let (caller, url) = (Arc::clone(&caller), server.url());
            tokio::spawn(async move { caller(url).await })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        refused += usize::from(call.await?? == StatusCode::TOO_MANY_REQUESTS);
    }
    let took = start.elapsed();
    let (counted, fullest) = server.stop();
    Ok(Run { name, counted, fullest, refused, took })
}

fn governor(client: Client) -> Caller {
    let burst = NonZeroU32::new(RATE).expect("not 0");
    let quota = Quota::with_period(PER / RATE).expect("not 0").allow_burst(burst);
    let limiter = Arc::new(DefaultDirectRateLimiter::direct(quota));
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    Box::new(move |url| {
        let (client, limiter, at_once) =
            (client.clone(), Arc::clone(&limiter), Arc::clone(&at_once));
        Box::pin(async move {
            let _one_of = at_once.acquire().await?;
            limiter.until_ready().await;
            Ok(client.get(url).send().await?.status())
        })
    })
}

fn tower(client: Client) -> Caller {
    let send = service_fn(move |url: String| {
        let client = client.clone();
        async move { Ok::<_, Failure>(client.get(url).send().await?.status()) }
    });
    let service = ServiceBuilder::new()
        .buffer(CALLS)
        .concurrency_limit(AT_ONCE)
        .rate_limit(RATE.into(), PER)
        .service(send);
    Box::new(move |url| Box::pin(service.clone().oneshot(url)))
}

fn ours() -> Result<Caller, Failure> {
    let limiter = RateLimiter::builder().limit("20/200ms".parse()?).concurrency(AT_ONCE).build()?;
    let client = RateLimit::new(limiter).client(Client::builder().no_proxy())?;
    Ok(Box::new(move |url| {
        let client = client.clone();
        Box::pin(async move { Ok(client.get(url).send().await?.status()) })
    }))
}
