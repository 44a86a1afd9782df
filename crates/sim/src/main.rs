//! Lives as many lives as there is time for, on every core.

// Tasks a second need no more digits than a float has.
#![allow(clippy::cast_precision_loss)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sim::{Finding, Tally, live, runtime};

/// Drives the library through random lives in simulated time, and judges each of them.
///
/// Each life follows from its seed. Without --seed the first is taken from the time; the others count
/// on from it. A finding prints its seed, and the exit code is 1.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  sim --seconds 60\n  sim --tasks 1000000000\n  sim --lives 1 --seed 42"
)]
struct Args {
    /// The first seed
    #[arg(long)]
    seed: Option<u64>,
    /// Stops after this many seconds [default: 10, where nothing else says when to stop]
    #[arg(long)]
    seconds: Option<u64>,
    /// Stops after this many lives
    #[arg(long)]
    lives: Option<u64>,
    /// Stops after this many tasks
    #[arg(long)]
    tasks: Option<u64>,
    /// How many threads [default: one for each core]
    #[arg(short = 'j', long)]
    threads: Option<usize>,
}

struct Progress {
    next_life: AtomicU64,
    tasks: AtomicU64,
    stop: AtomicBool,
    tally: Mutex<Tally>,
    finding: Mutex<Option<Finding>>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let first_seed = args.seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as u64
    });
    let begin = Instant::now();
    let forever = args.lives.is_none() && args.tasks.is_none();
    let seconds = args.seconds.or(forever.then_some(10));
    let progress = Progress {
        next_life: AtomicU64::new(0),
        tasks: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        tally: Mutex::default(),
        finding: Mutex::default(),
    };
    let threads = args.threads.or_else(|| thread::available_parallelism().ok().map(usize::from));
    let bar = ProgressBar::no_length().with_style(
        ProgressStyle::with_template("{spinner} {human_pos} tasks, {per_sec}, {elapsed}")
            .expect("a template"),
    );
    thread::scope(|scope| {
        for _ in 0..threads.unwrap_or(1) {
            scope.spawn(|| {
                let runtime = runtime();
                while !progress.stop.load(Ordering::Relaxed) {
                    let life = progress.next_life.fetch_add(1, Ordering::Relaxed);
                    let is_late = seconds
                        .is_some_and(|seconds| begin.elapsed() >= Duration::from_secs(seconds));
                    let ran = progress.tasks.load(Ordering::Relaxed);
                    let is_enough = args.lives.is_some_and(|lives| life >= lives)
                        || args.tasks.is_some_and(|tasks| ran >= tasks);
                    if is_late || is_enough {
                        break;
                    }
                    progress.one(first_seed.wrapping_add(life), &runtime);
                    bar.set_position(progress.tasks.load(Ordering::Relaxed));
                }
            });
        }
    });
    bar.finish_and_clear();
    let tally = progress.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{tally}");
    let took = begin.elapsed().as_secs_f64();
    println!("  {:.0} tasks a second; first seed {first_seed}", tally.tasks as f64 / took);
    if args.lives == Some(1) {
        println!("  digest {:016x}", tally.digest);
    }
    match progress.finding.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => ExitCode::SUCCESS,
        Some(finding) => {
            eprintln!("{finding}");
            eprintln!("again: cargo run --release -p sim -- --lives 1 --seed {}", finding.seed);
            ExitCode::FAILURE
        }
    }
}

impl Progress {
    fn one(&self, seed: u64, runtime: &tokio::runtime::Runtime) {
        match live(seed, runtime) {
            Ok(tally) => {
                self.tasks.fetch_add(tally.tasks, Ordering::Relaxed);
                self.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&tally);
            }
            Err(finding) => {
                self.stop.store(true, Ordering::Relaxed);
                let mut first = self.finding.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(finding);
            }
        }
    }
}
