//! Measures a limit that processes share through a folder: what a task costs, beside a transaction of `SQLite`; how much
//! of a binding limit eight processes use; and how the cost grows.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use serde::Serialize;
use strict_rate_limiter::future::Acquire;
use strict_rate_limiter::{Limit, Permit};
use strict_rate_limiter_core::{Record, audit};
use strict_rate_limiter_shared::SharedRateLimiter;

use crate::growth::{join, poll};
use crate::spread::Spread;

const PROCESSES: usize = 8;
const RATE: u32 = 20;

/// Inserts rows, a transaction each, and prints the nanoseconds for each.
const SQLITE: &str = "
import sqlite3, sys, time
rows = int(sys.argv[2])
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('pragma journal_mode=wal')
db.execute('pragma synchronous=off')
db.execute('create table if not exists tasks (start integer, weight integer)')
begin = time.perf_counter_ns()
for row in range(rows):
    db.execute('insert into tasks values (?, ?)', (row, 1))
print((time.perf_counter_ns() - begin) / rows)
";

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Shared {
    /// Acquire and complete, one process alone, never limiting.
    pub(crate) alone_ns: Spread,
    /// A transaction of `SQLite` that inserts a row (WAL, `synchronous=OFF`); none if there is no Python to run it.
    pub(crate) sqlite_ns: Option<Spread>,
    /// The period in milliseconds, how much of it eight processes used, and the fullest window over the rate.
    pub(crate) used: Vec<(u64, Spread, f64)>,
    /// By the number of completions in the window.
    pub(crate) with_window: Vec<(u64, Spread)>,
    /// By the number of sessions, each with a waiter.
    pub(crate) with_sessions: Vec<(usize, Spread)>,
}

pub(crate) fn measure(rounds: usize, shorten: u32) -> Result<Shared, Box<dyn Error>> {
    let root = env::temp_dir().join(format!("bench-shared-{}", std::process::id()));
    fs::create_dir_all(&root)?;
    let measured = measure_in(&root, rounds, shorten);
    fs::remove_dir_all(&root)?;
    measured
}

fn measure_in(root: &Path, rounds: usize, shorten: u32) -> Result<Shared, Box<dyn Error>> {
    let times = 20_000 / shorten;
    let alone = fresh(&root.join("alone"), "1_000_000/1us".parse()?)?;
    let (mut alone_ns, mut sqlite_ns) = (Vec::new(), Vec::new());
    // In turn, since the machine is not always as fast.
    for _ in 0..rounds {
        alone_ns.push(cost(&alone, times)?);
        sqlite_ns.extend(sqlite(&root.join("sqlite.db"), times));
    }
    let mut used = Vec::new();
    for (per_ms, windows) in [(100, 40), (1_000, 6)] {
        let windows = (windows / shorten).max(3);
        let runs = if shorten > 1 { 1 } else { 3 };
        let runs = (0..runs)
            .map(|run| utilisation(&root.join(format!("used-{per_ms}-{run}")), per_ms, windows));
        let runs = runs.collect::<Result<Vec<_>, _>>()?;
        let fullest = runs.iter().map(|(_, fullest)| *fullest).fold(0.0, f64::max);
        let shares = runs.iter().map(|(share, _)| *share).collect();
        used.push((per_ms, Spread::of(shares), fullest));
    }
    let mut with_window = Vec::new();
    for held in [10_u64, 1_000, 4_000, 1_000_000] {
        let folder = root.join(format!("window-{held}"));
        let limit = Limit::tasks(held, Duration::from_secs(86_400))?;
        let limiter = fresh(&folder, limit)?;
        for _ in 0..held.min(20_000) - 1 {
            limiter.acquire_blocking()?.complete();
        }
        // Full but for one, which is taken and given back.
        let step = || limiter.try_acquire().map(Permit::release_unused);
        let rounds = (0..rounds).map(|_| timed(times / 10, step));
        with_window.push((held, Spread::of(rounds.collect::<Result<_, _>>()?)));
    }
    let mut with_sessions = Vec::new();
    for sessions in [1, 8, 64] {
        let folder = root.join(format!("sessions-{sessions}"));
        let first = fresh(&folder, "1_000_000_000/1us".parse()?)?;
        let all: Vec<_> =
            (0..sessions).map(|_| SharedRateLimiter::open(&folder)).collect::<Result<_, _>>()?;
        let mut permit = Some(first.try_acquire()?);
        let mut waiting: Vec<Acquire<'_>> = all.iter().map(|limiter| join(limiter)).collect();
        let mut next = 0;
        let rounds = (0..rounds).map(|_| {
            timed(times / 10, || {
                permit.take().expect("granted").complete();
                permit = poll(&mut waiting[next]);
                waiting[next] = join(&all[next]);
                next = (next + 1) % sessions;
                Ok::<_, Box<dyn Error>>(())
            })
        });
        with_sessions.push((sessions, Spread::of(rounds.collect::<Result<_, _>>()?)));
    }
    let sqlite_ns = (!sqlite_ns.is_empty()).then(|| Spread::of(sqlite_ns));
    Ok(Shared { alone_ns: Spread::of(alone_ns), sqlite_ns, used, with_window, with_sessions })
}

fn fresh(folder: &Path, limit: Limit) -> Result<SharedRateLimiter, Box<dyn Error>> {
    Ok(SharedRateLimiter::builder(folder).limit(limit).fresh().open()?)
}

fn cost(limiter: &SharedRateLimiter, times: u32) -> Result<f64, Box<dyn Error>> {
    timed(times, || limiter.acquire_blocking().map(Permit::complete))
}

fn timed<E: Into<Box<dyn Error>>>(
    times: u32,
    mut step: impl FnMut() -> Result<(), E>,
) -> Result<f64, Box<dyn Error>> {
    let begin = Instant::now();
    for _ in 0..times {
        step().map_err(Into::into)?;
    }
    Ok(begin.elapsed().as_nanos() as f64 / f64::from(times))
}

fn sqlite(database: &Path, rows: u32) -> Option<f64> {
    let command = Command::new("python3")
        .args(["-c", SQLITE])
        .arg(database)
        .arg(rows.to_string())
        .stderr(Stdio::null())
        .output();
    String::from_utf8(command.ok()?.stdout).ok()?.trim().parse().ok()
}

/// Eight processes with tasks of no length. Returns the share of a full window in each period, and the fullest window
/// over the rate.
fn utilisation(folder: &Path, per_ms: u64, windows: u32) -> Result<(f64, f64), Box<dyn Error>> {
    let limit = Limit::tasks(u64::from(RATE), Duration::from_millis(per_ms))?;
    let limiter = fresh(folder, limit)?;
    let tasks = RATE * windows / PROCESSES as u32 + 1;
    let workers = (0..PROCESSES).map(|_| {
        let mut command = Command::new(env::current_exe()?);
        command.arg("--shared-worker").arg(folder).args(["--times", &tasks.to_string()]);
        command.stdout(Stdio::piped()).spawn()
    });
    let workers = workers.collect::<Result<Vec<_>, _>>()?;
    let mut records = Vec::new();
    for worker in workers {
        let output = worker.wait_with_output()?;
        for line in String::from_utf8(output.stdout)?.lines() {
            let (start, end) = line.split_once(' ').ok_or("a worker's line")?;
            records.push(Record { start: start.parse()?, end: end.parse()?, weight: 1 });
        }
    }
    drop(limiter);
    records.sort_by_key(|record| record.start);
    let fullest = audit::check(&limit, &records)?.worst.units as f64 / f64::from(RATE);
    // From the first task of the first window to the first task of the last whole one, once all processes are there.
    let windows = (records.len() as u32 - 1) / RATE;
    let (first, last) = (RATE as usize, (RATE * windows) as usize);
    let taken = Duration::from_nanos(records[last].start - records[first].start);
    let full = limit.per() * (windows - 1);
    Ok((full.as_secs_f64() / taken.as_secs_f64(), fullest))
}

/// What each of the eight processes does: prints when its tasks started and ended.
pub(crate) fn work(folder: &Path, times: u64) -> Result<(), Box<dyn Error>> {
    let limiter = SharedRateLimiter::open(folder)?;
    let clock = limiter.folder().clock();
    let mut lines = Vec::new();
    for _ in 0..times {
        let permit = limiter.acquire_blocking()?;
        let start = clock.now_ns();
        writeln!(lines, "{start} {}", clock.now_ns())?;
        permit.complete();
    }
    std::io::stdout().write_all(&lines)?;
    Ok(())
}
