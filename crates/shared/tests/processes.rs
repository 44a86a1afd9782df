//! Real processes, in real time, that share a folder and are killed and stopped at random. Every run is audited, by the
//! clock that all processes have in common. No assertion depends on how fast they are.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use rustix::process::{Pid, Signal, kill_process};
use strict_rate_limiter_core::{Limit, Record, audit};
use strict_rate_limiter_shared::SharedRateLimiter;
use strict_rate_limiter_shared::folder::{BootClock, Folder};

const FOLDER: &str = "SHARED_TEST_FOLDER";
const LOG: &str = "SHARED_TEST_LOG";
const TASKS: &str = "SHARED_TEST_TASKS";
const ASYNC: &str = "SHARED_TEST_ASYNC";

/// Not a test by itself: what the processes of the other tests run.
#[test]
fn worker() {
    let Ok(folder) = env::var(FOLDER) else { return };
    let log = OpenOptions::new().create(true).append(true).open(env::var(LOG).unwrap()).unwrap();
    let tasks: u64 = env::var(TASKS).unwrap().parse().unwrap();
    let limiter = SharedRateLimiter::open(folder).unwrap();
    if env::var(ASYNC).is_ok() {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(work_async(&limiter, &log, tasks));
    } else {
        work(&limiter, &log, tasks);
    }
}

fn work(limiter: &SharedRateLimiter, log: &File, tasks: u64) {
    let mut random = fastrand::Rng::new();
    for task in 0..tasks {
        let weight = random.u64(1..=2);
        let permit = limiter.request().weight(weight).acquire_blocking().unwrap();
        run(limiter.folder(), log, task, weight, || {
            thread::sleep(Duration::from_micros(random.u64(0..2_000)));
        });
        if random.bool() {
            permit.complete();
        }
    }
}

async fn work_async(limiter: &SharedRateLimiter, log: &File, tasks: u64) {
    for task in 0..tasks {
        let weight = fastrand::u64(1..=2);
        let request = limiter.request().weight(weight);
        if fastrand::u8(..) < 40 {
            // A waiter that gives up leaves no trace.
            let patience = Duration::from_millis(fastrand::u64(0..5));
            let waits = limiter.request().weight(weight).acquire();
            drop(tokio::time::timeout(patience, waits).await);
        }
        let permit = request.acquire().await.unwrap();
        run(limiter.folder(), log, task, weight, || {});
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..1_000))).await;
        permit.complete();
    }
}

fn run(folder: &Folder, mut log: &File, task: u64, weight: u64, work: impl FnOnce()) {
    let clock = folder.clock();
    log.write_all(format!("start {task} {weight} {}\n", clock.now_ns()).as_bytes()).unwrap();
    work();
    log.write_all(format!("end {task} {weight} {}\n", clock.now_ns()).as_bytes()).unwrap();
}

struct Worker {
    child: Child,
    log: PathBuf,
    killed_at: Option<u64>,
}

/// The processes on one folder, and what they have logged.
struct Processes {
    root: tempfile::TempDir,
    clock: BootClock,
    /// A process of our own holds the folder open, for its clock.
    limiter: SharedRateLimiter,
    limits: Vec<Limit>,
    workers: Vec<Worker>,
}

impl Processes {
    fn new(limits: &[&str], concurrency: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        let limits: Vec<Limit> = limits.iter().map(|text| text.parse().unwrap()).collect();
        let builder = SharedRateLimiter::builder(root.path().join("limit"));
        let builder = builder.limits(limits.clone()).concurrency(concurrency).fresh();
        let limiter = builder.open().unwrap();
        Self { clock: limiter.folder().clock(), root, limiter, limits, workers: Vec::new() }
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("limit")
    }

    fn start(&mut self, tasks: u64, is_async: bool) {
        let log = self.root.path().join(format!("log-{}", self.workers.len()));
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "worker", "--nocapture"]);
        command.env(FOLDER, self.folder()).env(LOG, &log).env(TASKS, tasks.to_string());
        if is_async {
            command.env(ASYNC, "1");
        }
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        self.workers.push(Worker { child, log, killed_at: None });
    }

    fn signal(&self, worker: usize, signal: Signal) {
        let pid = Pid::from_child(&self.workers[worker].child);
        kill_process(pid, signal).unwrap();
    }

    fn kill(&mut self, worker: usize) {
        // Its task, if any, ran at this time. Whatever the others learn of its death, they learn later.
        self.workers[worker].killed_at = Some(self.clock.now_ns());
        self.workers[worker].child.kill().unwrap();
        self.workers[worker].child.wait().unwrap();
    }

    fn wait(&mut self) {
        for worker in &mut self.workers {
            if worker.killed_at.is_none() {
                assert!(worker.child.wait().unwrap().success());
            }
        }
    }

    /// The tasks of all processes. A killed process's last one may have begun and not ended.
    fn records(&self) -> Vec<Record> {
        self.workers.iter().flat_map(|worker| records(&worker.log, worker.killed_at)).collect()
    }

    fn assert_clean(&self) -> usize {
        let records = self.records();
        for limit in &self.limits {
            let audit = audit::check(limit, &records).unwrap();
            assert!(audit.is_clean(), "{audit:?}");
        }
        records.len()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}

fn records(log: &Path, killed_at: Option<u64>) -> Vec<Record> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let mut records: Vec<Record> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, _, weight, at] = words[..] else { continue };
        let (Ok(weight), Ok(at)) = (weight.parse(), at.parse()) else { continue };
        if what == "start" {
            records.push(Record { start: at, end: at, weight });
            is_open = true;
        } else if let Some(last) = records.last_mut() {
            last.end = at;
            is_open = false;
        }
    }
    if let (true, Some(killed_at), Some(last)) = (is_open, killed_at, records.last_mut()) {
        last.end = last.end.max(killed_at);
    }
    records
}

#[test]
fn eight_processes_run_under_one_limit_and_none_is_forgotten() {
    let mut processes = Processes::new(&["20/100ms", "30w/100ms"], 2);
    for index in 0..8 {
        processes.start(30, index % 2 == 0);
    }
    processes.wait();
    assert_eq!(processes.assert_clean(), 8 * 30);
    let stats = processes.limiter.stats();
    assert_eq!((stats.running, stats.queued), (0, 0));
}

#[test]
fn whoever_is_killed_or_stopped_the_limit_holds_and_the_others_go_on() {
    let mut random = fastrand::Rng::new();
    let seed = random.get_seed();
    println!("seed {seed}");
    let mut processes = Processes::new(&["10/50ms", "18w/80ms"], 3);
    let tasks_of_each = 1_000_000;
    (0..6).for_each(|index| processes.start(tasks_of_each, index % 2 == 0));
    let mut alive: Vec<usize> = (0..6).collect();
    let seconds = env::var("SHARED_SECONDS").map_or(8, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut kills = 0;
    while Instant::now() < end {
        thread::sleep(Duration::from_micros(random.u64(0..40_000)));
        let at = random.usize(0..alive.len());
        if random.u8(..) < 60 {
            processes.signal(alive[at], Signal::STOP);
            // Longer than any period, now and then.
            thread::sleep(Duration::from_millis(random.u64(0..200)));
            processes.signal(alive[at], Signal::CONT);
        } else {
            processes.kill(alive.swap_remove(at));
            kills += 1;
            alive.push(processes.workers.len());
            processes.start(tasks_of_each, random.bool());
        }
    }
    let before = processes.records().len();
    // After all of that, somebody still gets permits.
    let patience = Instant::now() + Duration::from_secs(60);
    while processes.records().len() < before + 20 {
        assert!(Instant::now() < patience, "nobody runs any more: {:?}", processes.limiter.stats());
        thread::sleep(Duration::from_millis(20));
    }
    for worker in alive {
        processes.kill(worker);
    }
    let tasks = processes.assert_clean();
    println!("{tasks} tasks, {kills} kills");
    // Whatever the dead left behind, the next gets its permit.
    let request = processes.limiter.request().within(Duration::from_secs(60));
    request.acquire_blocking().unwrap().complete();
}
