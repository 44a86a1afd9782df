//! Does runs on every core until the time, the number of runs or the number of tasks is reached.

// Tasks a second need no more digits than a float has.
#![allow(clippy::cast_precision_loss)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sim::{Finding, Stats, runtime, simulate};

/// Runs the library in simulated time, with random limits, callers and faults, and checks each run.
///
/// Each run follows from its seed. Without --seed the first seed is taken from the time; the others count up
/// from it. A finding prints its seed, and the exit code is 1.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  sim --seconds 60\n  sim --tasks 1000000000\n  sim --runs 1 --seed 42"
)]
struct Args {
    /// The first seed
    #[arg(long)]
    seed: Option<u64>,
    /// Stops after this many seconds [default: 10, unless --runs or --tasks is given]
    #[arg(long)]
    seconds: Option<u64>,
    /// Stops after this many runs
    #[arg(long)]
    runs: Option<u64>,
    /// Stops after this many tasks
    #[arg(long)]
    tasks: Option<u64>,
    /// How many threads [default: one for each core]
    #[arg(short = 'j', long)]
    threads: Option<usize>,
}

struct Progress {
    next_run: AtomicU64,
    tasks: AtomicU64,
    stop: AtomicBool,
    stats: Mutex<Stats>,
    finding: Mutex<Option<Finding>>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let first_seed = args.seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as u64
    });
    let begin = Instant::now();
    let forever = args.runs.is_none() && args.tasks.is_none();
    let seconds = args.seconds.or(forever.then_some(10));
    let progress = Progress {
        next_run: AtomicU64::new(0),
        tasks: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        stats: Mutex::default(),
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
                    let run = progress.next_run.fetch_add(1, Ordering::Relaxed);
                    let is_late = seconds
                        .is_some_and(|seconds| begin.elapsed() >= Duration::from_secs(seconds));
                    let ran = progress.tasks.load(Ordering::Relaxed);
                    let is_enough = args.runs.is_some_and(|runs| run >= runs)
                        || args.tasks.is_some_and(|tasks| ran >= tasks);
                    if is_late || is_enough {
                        break;
                    }
                    progress.one(first_seed.wrapping_add(run), &runtime);
                    bar.set_position(progress.tasks.load(Ordering::Relaxed));
                }
            });
        }
    });
    bar.finish_and_clear();
    let stats = progress.stats.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{stats}");
    let took = begin.elapsed().as_secs_f64();
    println!("  {:.0} tasks a second; first seed {first_seed}", stats.tasks as f64 / took);
    if args.runs == Some(1) {
        println!("  digest {:016x}", stats.digest);
    }
    match progress.finding.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => ExitCode::SUCCESS,
        Some(finding) => {
            eprintln!("{finding}");
            eprintln!("again: cargo run --release -p sim -- --runs 1 --seed {}", finding.seed);
            ExitCode::FAILURE
        }
    }
}

impl Progress {
    fn one(&self, seed: u64, runtime: &tokio::runtime::Runtime) {
        match simulate(seed, runtime) {
            Ok(stats) => {
                self.tasks.fetch_add(stats.tasks, Ordering::Relaxed);
                self.stats.lock().unwrap_or_else(PoisonError::into_inner).add(&stats);
            }
            Err(finding) => {
                self.stop.store(true, Ordering::Relaxed);
                let mut first = self.finding.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(finding);
            }
        }
    }
}
