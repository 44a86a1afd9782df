//! How much of a binding limit is used: tasks of no length, back to back, against a full window
//! every period. `cargo bench -p strict-rate-limiter --bench utilisation`
//!
//! Each line is the median of several runs. What is lost is lateness: the time from the opening of
//! the window until the task that waited for it runs.

use std::time::{Duration, Instant};

use strict_rate_limiter::RateLimiter;
use strict_rate_limiter_core::{Limit, Record, audit};

const RATE: u64 = 20;
const RUNS: usize = 5;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return; // Built and started by the tests, to see that it builds.
    }
    println!("utilisation of {RATE} tasks per period, median of {RUNS} runs [least, most]");
    for (per, windows) in [
        (Duration::from_millis(1), 2_000),
        (Duration::from_millis(10), 200),
        (Duration::from_millis(100), 20),
        (Duration::from_secs(1), 3),
    ] {
        for threads in [1, 2] {
            let mut runs: Vec<f64> = (0..RUNS).map(|_| run(per, windows, threads)).collect();
            runs.sort_by(f64::total_cmp);
            let [least, median, most] = [runs[0], runs[RUNS / 2], runs[RUNS - 1]];
            println!("per {per:>6?}, {threads} thread(s): {median:.4} [{least:.4}, {most:.4}]");
        }
    }
}

fn run(per: Duration, windows: u64, threads: usize) -> f64 {
    let limit = Limit::tasks(RATE, per).unwrap();
    let limiter = RateLimiter::builder().limit(limit).build().unwrap();
    let runtime = match threads {
        1 => tokio::runtime::Builder::new_current_thread().build().unwrap(),
        _ => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).build().unwrap(),
    };
    let begin = Instant::now();
    let tasks = async move {
        let now = || u64::try_from(begin.elapsed().as_nanos()).unwrap();
        let mut records = vec![];
        for _ in 0..RATE * windows {
            let permit = limiter.acquire().await.unwrap();
            let start = now();
            records.push(Record { start, end: now(), weight: 1 });
            permit.complete();
        }
        records
    };
    let records = runtime.block_on(async { runtime.spawn(tasks).await.unwrap() });
    assert!(audit(&limit, &records).unwrap().is_clean(), "fast is nothing if it is not strict");
    // From the first task of the first window to the first of the last.
    let first_of_last = usize::try_from(RATE * (windows - 1)).unwrap();
    let taken = Duration::from_nanos(records[first_of_last].start - records[0].start);
    (per * u32::try_from(windows - 1).unwrap()).as_secs_f64() / taken.as_secs_f64()
}
