//! Measures the cost of one task when the limit never binds: time, and instructions, which do not depend on the load
//! of the machine.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use serde::Serialize;
use strict_rate_limiter::{KeyedRateLimiter, Limit, RateLimiter};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Mutex, Semaphore};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_resilience_ratelimiter::{RateLimiterLayer, WindowType};

use crate::spread::Spread;

/// Runs empty tasks this many times, and returns the time that they took.
#[derive(Clone, Copy)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    run: fn(u64) -> Duration,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    pub(crate) name: &'static str,
    /// Nanoseconds for each task.
    pub(crate) ns: Spread,
    /// Instructions for each task; `None` without valgrind.
    pub(crate) instructions: Option<u64>,
}

/// One task after another on one thread, without contention.
pub(crate) const ALONE: [Contender; 14] = [
    Contender {
        name: "strict-rate-limiter: acquire + complete",
        run: |times| {
            let limiter = ours();
            on_one(times, async || limiter.acquire().await.expect("open").complete())
        },
    },
    Contender {
        name: "the same for a period of 1 ms, on the system's clock",
        run: |times| {
            let limiter = ours_on_the_systems_clock();
            on_one(times, async || limiter.acquire().await.expect("open").complete())
        },
    },
    Contender {
        name: "strict-rate-limiter, keyed, a thousand keys: acquire + complete",
        run: |times| {
            let settings = RateLimiter::builder().limit(never_binds("1s"));
            let limiters = KeyedRateLimiter::new(settings).expect("in range");
            let next = one_of_a_thousand();
            on_one(times, async || limiters.acquire(&next()).await.expect("open").complete())
        },
    },
    Contender {
        name: "governor, keyed, a thousand keys: `until_key_ready`",
        run: |times| {
            let quota = governor::Quota::per_second(NonZeroU32::MAX);
            let limiters = governor::DefaultKeyedRateLimiter::keyed(quota);
            let next = one_of_a_thousand();
            on_one(times, async || limiters.until_key_ready(&next()).await)
        },
    },
    Contender {
        name: "governor `until_ready` + tokio `Mutex`",
        run: |times| {
            let (governor, mutex) = (governor(), Mutex::new(()));
            on_one(times, async || {
                let _one_at_a_time = mutex.lock().await;
                governor.until_ready().await;
            })
        },
    },
    Contender {
        name: "governor `until_ready`",
        run: |times| {
            let governor = governor();
            on_one(times, async || governor.until_ready().await)
        },
    },
    Contender {
        name: "leaky-bucket `acquire_one`",
        run: |times| {
            let limiter = leaky_bucket();
            on_one(times, async || limiter.acquire_one().await)
        },
    },
    Contender {
        name: "tower `rate_limit` + `concurrency_limit(1)`",
        run: |times| {
            let limits = ServiceBuilder::new().concurrency_limit(1).rate_limit(u64::MAX, A_SECOND);
            one_service(times, || limits.service(service_fn(nothing)))
        },
    },
    Contender {
        name: "tower `rate_limit`",
        run: |times| {
            let limit = ServiceBuilder::new().rate_limit(u64::MAX, A_SECOND);
            one_service(times, || limit.service(service_fn(nothing)))
        },
    },
    Contender {
        name: "tower-resilience, sliding log of 1 ms",
        run: |times| {
            // A period of a second would measure mostly the growth of its log.
            let layer = RateLimiterLayer::builder()
                .limit_for_period(1 << 20)
                .refresh_period(Duration::from_millis(1))
                .window_type(WindowType::SlidingLog)
                .build()
                .expect("a valid configuration");
            let limit = ServiceBuilder::new().layer(layer);
            one_service(times, || limit.service(service_fn(nothing)))
        },
    },
    Contender {
        name: "ratelimit `try_wait`",
        run: |times| {
            let limiter = ratelimit::Ratelimiter::builder(1_000_000_000_000);
            let limiter = limiter.initial_available(1_000_000_000_000).build().expect("valid");
            on_one(times, async || limiter.try_wait().expect("never limited"))
        },
    },
    Contender {
        name: "async-rate-limiter `acquire`",
        run: |times| {
            let limiter = async_rate_limiter::RateLimiter::new(1_000_000_000);
            on_one(times, async || limiter.acquire().await)
        },
    },
    Contender {
        name: "tokio `Semaphore(1)`, no limit",
        run: |times| {
            let semaphore = Semaphore::new(1);
            on_one(times, async || drop(semaphore.acquire().await.expect("open")))
        },
    },
    Contender {
        name: "`Instant::now`, no limit",
        run: |times| {
            on_one(times, async || {
                black_box(Instant::now());
            })
        },
    },
];

/// Two tasks that alternate as fast as they can, on the two threads of one runtime.
pub(crate) const CONTENDED: [Contender; 6] = [
    Contender {
        name: "strict-rate-limiter: acquire + complete",
        run: |times| {
            let limiter = ours();
            on_two(times, move || {
                let limiter = limiter.clone();
                async move { limiter.acquire().await.expect("open").complete() }
            })
        },
    },
    Contender {
        name: "the same for a period of 1 ms, on the system's clock",
        run: |times| {
            let limiter = ours_on_the_systems_clock();
            on_two(times, move || {
                let limiter = limiter.clone();
                async move { limiter.acquire().await.expect("open").complete() }
            })
        },
    },
    Contender {
        name: "governor `until_ready` + tokio `Mutex`",
        run: |times| {
            let shared = Arc::new((governor(), Mutex::new(())));
            on_two(times, move || {
                let shared = Arc::clone(&shared);
                async move {
                    let _one_at_a_time = shared.1.lock().await;
                    shared.0.until_ready().await;
                }
            })
        },
    },
    Contender {
        name: "governor `until_ready`",
        run: |times| {
            let governor = Arc::new(governor());
            on_two(times, move || {
                let governor = Arc::clone(&governor);
                async move { governor.until_ready().await }
            })
        },
    },
    Contender {
        name: "leaky-bucket `acquire_one`",
        run: |times| {
            let limiter = Arc::new(leaky_bucket());
            on_two(times, move || {
                let limiter = Arc::clone(&limiter);
                async move { limiter.acquire_one().await }
            })
        },
    },
    Contender {
        name: "tokio `Semaphore(1)`, no limit",
        run: |times| {
            let semaphore = Arc::new(Semaphore::new(1));
            on_two(times, move || {
                let semaphore = Arc::clone(&semaphore);
                async move { drop(semaphore.acquire().await.expect("open")) }
            })
        },
    },
];

const A_SECOND: Duration = Duration::from_secs(1);

/// A limit that never binds.
fn ours() -> RateLimiter {
    ours_with("1s")
}

/// The limiter does not use the fast clock for periods under 2 ms, where its error bound would matter.
fn ours_on_the_systems_clock() -> RateLimiter {
    ours_with("1ms")
}

fn ours_with(per: &str) -> RateLimiter {
    RateLimiter::builder().limit(never_binds(per)).build().expect("in range")
}

fn never_binds(per: &str) -> Limit {
    format!("1_000_000_000_000/{per}").parse().expect("a limit")
}

/// Keys in a fixed order that caches cannot predict.
fn one_of_a_thousand() -> impl Fn() -> u64 {
    let random = std::cell::RefCell::new(fastrand::Rng::with_seed(7));
    move || random.borrow_mut().u64(0..1_000)
}

fn governor() -> governor::DefaultDirectRateLimiter {
    governor::RateLimiter::direct(governor::Quota::per_second(NonZeroU32::MAX))
}

fn leaky_bucket() -> leaky_bucket::RateLimiter {
    let many = usize::MAX >> 2;
    leaky_bucket::RateLimiter::builder().max(many).initial(many).build()
}

async fn nothing((): ()) -> Result<(), std::convert::Infallible> {
    Ok(())
}

fn on_this_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

/// The number of untimed tasks before each measurement: limiters and processors warm up.
const WARM_UP: u64 = 50_000;

fn on_one(times: u64, task: impl AsyncFn()) -> Duration {
    on_this_thread().block_on(async {
        for _ in 0..WARM_UP {
            task().await;
        }
        let start = Instant::now();
        for _ in 0..times {
            task().await;
        }
        start.elapsed()
    })
}

fn one_service<S>(times: u64, make: impl FnOnce() -> S) -> Duration
where
    S: Service<(), Response = (), Error: std::fmt::Debug>,
{
    on_this_thread().block_on(async {
        let mut service = make();
        let mut start = Instant::now();
        for task in 0..WARM_UP + times {
            if task == WARM_UP {
                start = Instant::now();
            }
            let service = service.ready().await.expect("never fails");
            service.call(()).await.expect("never fails");
        }
        start.elapsed()
    })
}

/// Half of the tasks on each of two threads.
fn on_two<F>(times: u64, task: impl Fn() -> F + Clone + Send + 'static) -> Duration
where
    F: Future<Output = ()> + Send,
{
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let runtime = runtime.expect("a runtime");
    let take_turns = |times: u64| {
        let both = Arc::new(Barrier::new(2));
        let tasks = [task.clone(), task.clone()].map(|task| {
            let both = Arc::clone(&both);
            runtime.spawn(async move {
                // Each task has its own thread, and measuring starts when both run.
                both.wait();
                let start = Instant::now();
                for _ in 0..times / 2 {
                    task().await;
                }
                (start, Instant::now())
            })
        });
        let [first, second] = tasks.map(|task| runtime.block_on(task).expect("no task panics"));
        first.1.max(second.1) - first.0.min(second.0)
    };
    take_turns(WARM_UP);
    take_turns(times)
}

/// Measures all contenders in turn, this many rounds.
pub(crate) fn measure(
    contenders: &[Contender],
    rounds: usize,
    times: u64,
    mut done: impl FnMut(),
) -> Vec<Cost> {
    let mut ns = vec![vec![]; contenders.len()];
    for round in 0..=rounds {
        for (contender, ns) in contenders.iter().zip(&mut ns) {
            let took = (contender.run)(times);
            // The first round is only a warm-up.
            if round > 0 {
                ns.push(took.as_nanos() as f64 / times as f64);
            }
        }
        done();
    }
    let measured = contenders.iter().zip(ns).map(|(contender, ns)| Cost {
        name: contender.name,
        ns: Spread::of(ns),
        instructions: None,
    });
    measured.collect()
}

/// Counts instructions under valgrind: the difference between many and few tasks, divided by their number. So the
/// setup, part of which depends on the machine's speed, cancels out.
pub(crate) fn count_instructions(costs: &mut [Cost], contended: bool) {
    // Skip the first: under valgrind our fast clock distrusts the counter and asks the system three times instead, so
    // the count would not be of the code that users run.
    for cost in costs.iter_mut().skip(1) {
        let count = |times: u64| instructions(cost.name, contended, times);
        if let (Some(few), Some(many)) = (count(10_000), count(210_000)) {
            cost.instructions = Some(many.saturating_sub(few) / 200_000);
        }
    }
}

fn instructions(name: &str, contended: bool, times: u64) -> Option<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe().ok()?);
    command.args(["--only", name, "--times", &times.to_string()]);
    if contended {
        command.arg("--contended");
    }
    let said = command.output().ok()?;
    let said = String::from_utf8_lossy(&said.stderr);
    let counted = said.lines().find_map(|line| line.split("Collected : ").nth(1))?;
    counted.trim().parse().ok()
}

/// Runs one contender, for external profilers. Returns whether it exists.
pub(crate) fn run_only(name: &str, contended: bool, times: u64) -> bool {
    let contenders = if contended { &CONTENDED[..] } else { &ALONE };
    let found = contenders.iter().find(|contender| contender.name == name);
    found.map(|contender| (contender.run)(times)).is_some()
}
