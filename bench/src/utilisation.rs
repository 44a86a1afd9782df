//! Measures how much of a binding limit is used: the number of empty tasks, back to back, divided by a full window in
//! every period. The loss is lateness, from the opening of the window until the waiter runs. Over 1 the limit was
//! broken.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::peers::{PEERS, Peer};
use crate::spread::Spread;

const RATE: u32 = 20;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Utilisation {
    pub(crate) peer: &'static str,
    pub(crate) per_ms: u64,
    pub(crate) used: Spread,
}

/// Periods in milliseconds, each with the number of windows in a run.
pub(crate) const PERIODS: [(u64, u32); 4] = [(1, 1_000), (10, 150), (100, 20), (1_000, 4)];

/// Measures every peer at every period. Short periods run one after the other, since microseconds matter there.
pub(crate) fn measure(runs: usize, shorten: u32, mut done: impl FnMut()) -> Vec<Utilisation> {
    let mut measured = vec![];
    for (per_ms, windows) in PERIODS {
        let windows = (windows / shorten).max(3);
        let per = Duration::from_millis(per_ms);
        let mut used: Vec<Vec<f64>> = vec![vec![]; PEERS.len()];
        for _ in 0..runs {
            if per_ms < 100 {
                for (peer, used) in PEERS.iter().zip(&mut used) {
                    used.push(run(*peer, per, windows));
                }
            } else {
                std::thread::scope(|threads| {
                    let runs = PEERS.map(|peer| threads.spawn(move || run(peer, per, windows)));
                    for (run, used) in runs.into_iter().zip(&mut used) {
                        used.push(run.join().expect("no run panics"));
                    }
                });
            }
            done();
        }
        let peers = PEERS.iter().zip(used);
        measured.extend(peers.map(|(peer, used)| Utilisation {
            peer: peer.name,
            per_ms,
            used: Spread::of(used),
        }));
    }
    measured
}

fn run(peer: Peer, per: Duration, windows: u32) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    let starts = Arc::new(Mutex::new(Vec::with_capacity((RATE * windows) as usize)));
    let told = Arc::clone(&starts);
    runtime.block_on(async move {
        let limited = (peer.make)(RATE, per);
        for _ in 0..RATE * windows {
            let starts = Arc::clone(&told);
            let call = async move {
                starts.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            };
            limited(Box::pin(call)).await;
        }
    });
    let starts = starts.lock().unwrap_or_else(PoisonError::into_inner);
    // From the first task of the first window to the first task of the last window.
    let taken = starts[(RATE * (windows - 1)) as usize] - starts[0];
    (per * (windows - 1)).as_secs_f64() / taken.as_secs_f64()
}
