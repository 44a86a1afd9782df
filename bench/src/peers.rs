//! Sets up each contender for "RATE per PER", as its own documentation says.
//!
//! All have the same interface: they get a call to the server as a future, and run it when the limit allows. This
//! file has all of their configuration.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use strict_rate_limiter::{Limit, RateLimiter};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_resilience_ratelimiter::{RateLimiterLayer, WindowType};

/// A call to the server.
pub(crate) type Call = BoxFuture<'static, ()>;

/// A limiter that lets calls through.
pub(crate) type Limited = Arc<dyn Fn(Call) -> BoxFuture<'static, ()> + Send + Sync>;

/// A contender: its name, and how to build it for a rate and a period within a runtime.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// The algorithm: what it counts, and how.
    pub(crate) model: &'static str,
    /// The order in which it serves waiters.
    pub(crate) order: &'static str,
    pub(crate) is_ours: bool,
    pub(crate) make: fn(u32, Duration) -> Limited,
}

/// All of them, ours first.
pub(crate) const PEERS: [Peer; 9] = [
    Peer {
        name: "strict-rate-limiter",
        model: "window held until `per` after completion",
        order: "FIFO, one at a time",
        is_ours: true,
        make: |rate, per| ours(rate, per, 1),
    },
    Peer {
        name: "strict-rate-limiter, 16 at once",
        model: "window held until `per` after completion",
        order: "FIFO",
        is_ours: true,
        make: |rate, per| ours(rate, per, 16),
    },
    Peer {
        name: "governor `until_ready`",
        model: "admissions, GCRA",
        order: "none",
        is_ours: false,
        make: governor,
    },
    Peer {
        name: "leaky-bucket",
        model: "admissions, token bucket",
        order: "FIFO",
        is_ours: false,
        make: leaky_bucket,
    },
    Peer {
        name: "tower `rate_limit`",
        model: "admissions, fixed window",
        order: "FIFO behind a `buffer`",
        is_ours: false,
        make: tower_rate,
    },
    Peer {
        name: "tower `rate_limit` + `concurrency_limit(1)`",
        model: "admissions, fixed window",
        order: "FIFO, one at a time",
        is_ours: false,
        make: tower_rate_one_at_a_time,
    },
    Peer {
        name: "tower-resilience, sliding log",
        model: "admissions, sliding window",
        order: "none",
        is_ours: false,
        make: tower_resilience,
    },
    Peer {
        name: "ratelimit",
        model: "admissions, token bucket",
        order: "none",
        is_ours: false,
        make: ratelimit,
    },
    Peer {
        name: "async-rate-limiter",
        model: "admissions, token bucket",
        order: "none",
        is_ours: false,
        make: async_rate_limiter,
    },
];

fn ours(rate: u32, per: Duration, concurrency: usize) -> Limited {
    let limit = Limit::tasks(rate.into(), per).expect("in range");
    let limiter = RateLimiter::builder().limit(limit).concurrency(concurrency);
    let limiter = limiter.build().expect("in range");
    Arc::new(move |call| {
        let limiter = limiter.clone();
        Box::pin(async move { limiter.run(call).await.expect("never closed") })
    })
}

/// `RATE` cells that are replenished one by one over the period, as with `Quota::per_second(RATE)`.
fn governor(rate: u32, per: Duration) -> Limited {
    let rate = NonZeroU32::new(rate).expect("not 0");
    let quota = governor::Quota::with_period(per / rate.get()).expect("not 0").allow_burst(rate);
    let limiter = Arc::new(governor::RateLimiter::direct(quota));
    Arc::new(move |call| {
        let limiter = Arc::clone(&limiter);
        Box::pin(async move {
            limiter.until_ready().await;
            call.await;
        })
    })
}

fn leaky_bucket(rate: u32, per: Duration) -> Limited {
    let rate = rate as usize;
    let mut limiter = leaky_bucket::RateLimiter::builder();
    let limiter = Arc::new(limiter.max(rate).initial(rate).refill(rate).interval(per).build());
    Arc::new(move |call| {
        let limiter = Arc::clone(&limiter);
        Box::pin(async move {
            limiter.acquire_one().await;
            call.await;
        })
    })
}

/// The tower service behind the limiter: it runs the call.
macro_rules! the_server {
    () => {
        service_fn(|call: Call| async move {
            call.await;
            Ok::<_, Infallible>(())
        })
    };
}

/// The number of calls that may wait for a tower service.
const BUFFER: usize = 1_024;

macro_rules! limited_by {
    ($service:expr) => {{
        let service = $service;
        Arc::new(move |call| {
            let mut service = service.clone();
            Box::pin(async move {
                let service = service.ready().await.expect("never fails");
                service.call(call).await.expect("never fails");
            })
        })
    }};
}

fn tower_rate(rate: u32, per: Duration) -> Limited {
    let limit = ServiceBuilder::new().buffer(BUFFER).rate_limit(rate.into(), per);
    limited_by!(limit.service(the_server!()))
}

fn tower_rate_one_at_a_time(rate: u32, per: Duration) -> Limited {
    let limit = ServiceBuilder::new().buffer(BUFFER).concurrency_limit(1);
    limited_by!(limit.rate_limit(rate.into(), per).service(the_server!()))
}

fn tower_resilience(rate: u32, per: Duration) -> Limited {
    let layer = RateLimiterLayer::builder()
        .limit_for_period(rate as usize)
        .refresh_period(per)
        .timeout_duration(Duration::from_secs(3_600))
        .window_type(WindowType::SlidingLog)
        .build()
        .expect("a valid configuration");
    limited_by!(ServiceBuilder::new().layer(layer).service(the_server!()))
}

/// It returns the time to wait; the caller sleeps.
fn ratelimit(rate: u32, per: Duration) -> Limited {
    let limiter = ratelimit::Ratelimiter::builder(rate.into()).period(per);
    let limiter = Arc::new(limiter.build().expect("a valid configuration"));
    Arc::new(move |call| {
        let limiter = Arc::clone(&limiter);
        Box::pin(async move {
            while let Err(error) = limiter.try_wait() {
                tokio::time::sleep(wait(error)).await;
            }
            call.await;
        })
    })
}

fn wait(error: ratelimit::TryWaitError) -> Duration {
    match error {
        ratelimit::TryWaitError::Insufficient(wait) => wait,
        _ => Duration::from_millis(1),
    }
}

/// It only supports rates per second: the same rate, with the limit's number as the burst.
fn async_rate_limiter(rate: u32, per: Duration) -> Limited {
    let a_second = (f64::from(rate) / per.as_secs_f64()).round() as usize;
    let limiter = async_rate_limiter::RateLimiter::new(a_second);
    limiter.burst(rate as usize);
    Arc::new(move |call| {
        let limiter = limiter.clone();
        Box::pin(async move {
            limiter.acquire().await;
            call.await;
        })
    })
}
