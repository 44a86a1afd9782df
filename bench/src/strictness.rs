//! Measures whether the server sees more than it allows. A fake server uses this machine's clock: each call travels
//! to it, is counted, and travels back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde::Serialize;
use strict_rate_limiter_core::limit::saturating_ns;
use strict_rate_limiter_core::{Limit, Record, audit};
use tokio::runtime::Runtime;

use crate::peers::{Call, PEERS, Peer};

pub(crate) const RATE: u32 = 20;
pub(crate) const PER: Duration = Duration::from_millis(200);

/// The duration of a call, there and back. The server counts it at a uniformly random time within that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Latency {
    None,
    Small,
    Large,
    HeavyTailed,
}

/// The pattern in which callers ask for calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arrivals {
    /// All at once.
    AtOnce,
    /// At random, with a fifth more than the limit allows in the long run.
    Poisson,
    /// A full window of calls just before the edge of a window, and another just after it, repeatedly.
    StraddlingEdges,
}

/// The results of one run, as the server saw it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Seen {
    pub(crate) peer: &'static str,
    pub(crate) latency: Latency,
    pub(crate) arrivals: Arrivals,
    /// The fullest window, in calls.
    pub(crate) fullest: u64,
    /// The same divided by the limit. Over 1 the limit was broken.
    pub(crate) of_limit: f64,
    /// The time that all calls took, divided by that of a full window in every period.
    pub(crate) slowdown: f64,
    /// The time at which the server counted each call, in nanoseconds since the run began.
    #[serde(skip)]
    pub(crate) counted_ns: Vec<u64>,
}

impl Latency {
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::Small, Self::Large, Self::HeavyTailed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no delay",
            Self::Small => "up to 12 ms",
            Self::Large => "up to 150 ms",
            Self::HeavyTailed => "heavy-tailed, to 400 ms",
        }
    }

    /// The way there and the way back.
    fn travel(self, rng: &mut Rng) -> [Duration; 2] {
        let ms = match self {
            Self::None => return [Duration::ZERO; 2],
            Self::Small => 12.0 * rng.f64(),
            Self::Large => 150.0 * rng.f64(),
            // Pareto: half of them under 4 ms, one in a hundred over 90 ms.
            Self::HeavyTailed => (2.0 * (1.0 - rng.f64()).powf(-1.0 / 1.2)).min(400.0),
        };
        let there = ms * rng.f64();
        [there, ms - there].map(|ms| Duration::from_secs_f64(ms / 1e3))
    }
}

impl Arrivals {
    pub(crate) const ALL: [Self; 3] = [Self::AtOnce, Self::Poisson, Self::StraddlingEdges];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "all at once",
            Self::Poisson => "Poisson",
            Self::StraddlingEdges => "on and off, straddling window edges",
        }
    }

    fn times(self, calls: u32, rng: &mut Rng) -> Vec<Duration> {
        let mean = PER.as_secs_f64() / (1.2 * f64::from(RATE));
        let mut now = 0.0;
        (0..calls)
            .map(|call| match self {
                Self::AtOnce => Duration::ZERO,
                Self::Poisson => {
                    now -= (1.0 - rng.f64()).ln() * mean;
                    Duration::from_secs_f64(now)
                }
                Self::StraddlingEdges => {
                    let (pair, first) = (call / (2 * RATE), call % (2 * RATE) < RATE);
                    let edge = PER * (3 * pair + 1);
                    if first {
                        edge.saturating_sub(Duration::from_millis(2))
                    } else {
                        edge + Duration::from_millis(2)
                    }
                }
            })
            .collect()
    }
}

/// Measures every peer with every pattern. Runs with the same delays run concurrently, since they wait most of the
/// time.
pub(crate) fn measure(runtime: &Runtime, calls: u32, latencies: &[Latency]) -> Vec<Seen> {
    let mut seen = vec![];
    for &latency in latencies {
        let runs = PEERS.iter().flat_map(|peer| {
            Arrivals::ALL.map(|arrivals| runtime.spawn(run(*peer, latency, arrivals, calls)))
        });
        for run in runs.collect::<Vec<_>>() {
            seen.push(runtime.block_on(run).expect("no run panics"));
        }
    }
    seen
}

async fn run(peer: Peer, latency: Latency, arrivals: Arrivals, calls: u32) -> Seen {
    // The same calls for every peer.
    let mut rng = Rng::with_seed(1 + latency as u64 + 10 * arrivals as u64);
    let limited = (peer.make)(RATE, PER);
    let counted = Arc::new(Mutex::new(vec![]));
    let begin = Instant::now();
    let tasks = arrivals.times(calls, &mut rng).into_iter().map(|at| {
        let (limited, counted) = (Arc::clone(&limited), Arc::clone(&counted));
        let [there, back] = latency.travel(&mut rng);
        let call: Call = Box::pin(async move {
            travel(there).await;
            let now = begin.elapsed();
            counted.lock().unwrap_or_else(PoisonError::into_inner).push(saturating_ns(now));
            travel(back).await;
        });
        tokio::spawn(async move {
            travel(at.saturating_sub(begin.elapsed())).await;
            limited(call).await;
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no call panics");
    }
    let took = begin.elapsed();
    let mut counted_ns =
        std::mem::take(&mut *counted.lock().unwrap_or_else(PoisonError::into_inner));
    counted_ns.sort_unstable();
    let records = counted_ns.iter().map(|&at| Record { start: at, end: at, weight: 1 });
    let limit = Limit::tasks(RATE.into(), PER).expect("in range");
    let audit =
        audit::check(&limit, &records.collect::<Vec<_>>()).expect("nothing ends before it starts");
    let fullest = audit.worst.units as u64;
    // The last window takes no time: its calls start at once.
    let ideal = PER * (calls / RATE - 1);
    Seen {
        peer: peer.name,
        latency,
        arrivals,
        fullest,
        of_limit: fullest as f64 / f64::from(RATE),
        slowdown: took.as_secs_f64() / ideal.as_secs_f64(),
        counted_ns,
    }
}

async fn travel(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}
