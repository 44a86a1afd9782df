//! Four processes under one limit of 10 every 200 ms. One of them is killed in the middle of a task. The audit counts the
//! tasks of all of them.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use strict_rate_limiter::Limit;
use strict_rate_limiter::audit::{self, Record};
use strict_rate_limiter_shared::SharedRateLimiter;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(folder) = env::args().nth(1) {
        return one_process(&folder);
    }
    let limit: Limit = "10/200ms".parse()?;
    let folder = env::temp_dir().join(format!("one-limit-{}", std::process::id()));
    // Nothing ran before, so there is no need to wait for a period at first.
    let limiter = SharedRateLimiter::builder(&folder).limit(limit).fresh().open()?;
    let processes = (0..4)
        .map(|_| Command::new(env::current_exe()?).arg(&folder).stdout(Stdio::piped()).spawn());
    let mut processes = processes.collect::<Result<Vec<_>, _>>()?;
    thread::sleep(Duration::from_millis(300));
    let killed_at = limiter.folder().clock().now_ns();
    processes[0].kill()?;

    let mut records: Vec<Record> = Vec::new();
    for process in &mut processes {
        let lines = BufReader::new(process.stdout.take().ok_or("its output")?).lines();
        let mut tasks = 0;
        for line in lines {
            let line = line?;
            let (what, at) = line.split_once(' ').ok_or("a line of another kind")?;
            let at = at.parse()?;
            match (what, records.last_mut()) {
                // Until its end is read, a task may have run until its process was killed.
                ("start", _) => {
                    records.push(Record { start: at, end: at.max(killed_at), weight: 1 });
                    tasks += 1;
                }
                (_, Some(last)) => last.end = at,
                (_, None) => {}
            }
        }
        println!("a process ran {tasks} tasks, and ended with {}", process.wait()?);
    }
    let audit = audit::check(&limit, &records)?;
    println!("fullest window: {} of {}", audit.worst.units, limit.rate());
    assert!(audit.is_clean());
    drop(limiter);
    fs::remove_dir_all(folder)?;
    Ok(())
}

fn one_process(folder: &str) -> Result<(), Box<dyn Error>> {
    // The folder has the limit.
    let limiter = SharedRateLimiter::open(folder)?;
    let clock = limiter.folder().clock();
    for _ in 0..15 {
        let permit = limiter.acquire_blocking()?;
        println!("start {}", clock.now_ns());
        thread::sleep(Duration::from_millis(2));
        println!("end {}", clock.now_ns());
        permit.complete();
    }
    Ok(())
}
