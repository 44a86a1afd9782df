//! Limits that several runs share: one limit for all, whose settings they find there, see and change. Processes that
//! die, folders that fail: `shared_failures.rs`.
//!
//! The real binary and real time; no assertion depends on how fast anything is. Commands write down when they ran, by
//! the clock that all of them have in common.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::Value;
use strict_rate_limiter_core::{Limit, Record, audit};

use crate::support::{Folder, Ran, end, now_ns};

/// A script for `sh -c` that writes down its start, does `work`, and writes down its end.
pub(crate) fn noted(work: &str) -> String {
    format!("begin=$(date +%s%N); {work}; echo $begin $(date +%s%N) >> times")
}

/// What the commands have written down, held against a limit. Returns how many there are.
pub(crate) fn assert_clean(folder: &Folder, limit: &str) -> usize {
    let record = |line: &str| {
        let (start, end) = line.split_once(' ').unwrap();
        Record { start: start.parse().unwrap(), end: end.parse().unwrap(), weight: 1 }
    };
    let records: Vec<Record> = folder.read("times").lines().map(record).collect();
    let limit: Limit = limit.parse().unwrap();
    let audit = audit::check(&limit, &records).unwrap();
    assert!(audit.is_clean(), "{audit:?}");
    records.len()
}

pub(crate) fn status(folder: &Folder, name: &str) -> Value {
    let ran = call(folder, "status", &[name, "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

/// Runs a subcommand to its end, with an empty input.
pub(crate) fn call(folder: &Folder, subcommand: &str, arguments: &[&str]) -> Ran {
    let mut child = folder.subcommand(subcommand, arguments).spawn().unwrap();
    drop(child.stdin.take());
    end(child)
}

/// Waits until so many tasks of the limit run and so many wait.
pub(crate) fn wait_for(folder: &Folder, name: &str, running: usize, waiting: usize) {
    let count = |value: &Value| value.as_array().unwrap().len();
    folder.wait_until(|folder| {
        let ran = call(folder, "status", &[name, "--json"]);
        let Ok(seen) = serde_json::from_str::<Value>(&ran.out) else { return false };
        count(&seen["holders"]) == running && count(&seen["waiters"]) == waiting
    });
}

/// Starts a run of tasks that each wait for the file `go`; returns once the first of them runs.
pub(crate) fn blocked(folder: &Folder, items: usize, options: &[&str]) -> Child {
    let script = noted("n=0; until [ -e go ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done");
    let all = [options, &["--", "sh", "-c", &script]].concat();
    folder.start("x\n".repeat(items).as_bytes(), &all)
}

fn state_folder(folder: &Folder, name: &str) -> PathBuf {
    folder.path("state-home/ratelimit").join(format!("{name}.limit"))
}

// --- One limit

#[test]
fn two_runs_side_by_side_are_one_limit() {
    let folder = Folder::new();
    let items = "x\n".repeat(50);
    let script = noted("sleep 0.00$(( $$ % 9 ))");
    let options = ["20/500ms", "--shared", "api", "--fresh", "-j2", "--", "sh", "-c", &script];
    let first = folder.start(items.as_bytes(), &options);
    let second = folder.start(items.as_bytes(), &options);
    for run in [first, second] {
        let ran = end(run);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.err.contains("50 ok"), "{}", ran.err);
    }
    assert_eq!(assert_clean(&folder, "20/500ms"), 100);
    let seen = status(&folder, "api");
    assert_eq!((seen["completed"].as_u64(), seen["running"].as_u64()), (Some(100), Some(0)));
}

#[test]
fn pipes_and_runs_are_one_limit_and_a_pipe_notices_that_its_reader_goes() {
    let folder = Folder::new();
    let pipe = |lines: usize| {
        let mut child = folder.subcommand("pipe", &["5/1h", "--shared", "p", "--fresh"]);
        let mut child = child.spawn().unwrap();
        let lines = "x\n".repeat(lines);
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        child
    };
    let ran = end(pipe(3));
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 3), "{}", ran.err);
    let mut waits = pipe(4);
    let mut out = BufReader::new(waits.stdout.take().unwrap());
    let mut read_two = || {
        for _ in 0..2 {
            assert_eq!(out.read_line(&mut String::new()).unwrap(), 2);
        }
    };
    read_two();
    wait_for(&folder, "p", 0, 1);
    let mut gives_up = pipe(4);
    wait_for(&folder, "p", 0, 2);
    assert_eq!(status(&folder, "p")["limits"][0]["held"].as_u64(), Some(5));
    // Nobody reads what the one of them would write.
    drop(gives_up.stdout.take());
    assert_eq!(end(gives_up).code, Some(141));
    wait_for(&folder, "p", 0, 1);
    assert_eq!(call(&folder, "set", &["p", "1000/1s"]).code, Some(0));
    read_two();
    assert_eq!(end(waits).code, Some(0));
    let ran = folder.run("x\n", &["--shared", "p", "--", "echo"]);
    assert_eq!((ran.code, &*ran.out), (Some(0), "x\n"));
}

#[test]
fn a_new_limit_counts_as_used_up_and_that_is_said_once() {
    let folder = Folder::new();
    let script = noted(":");
    let options = ["1/300ms", "--shared", "./api.limit", "--", "sh", "-c", &script];
    let begin = now_ns();
    let ran = folder.run("x\n", &options);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let told = "nothing is known of what ran under `./api.limit` before, so its limits count as used up: the \
        first task waits ";
    assert!(ran.err.contains(told), "{}", ran.err);
    assert!(ran.err.contains(" (--fresh says that nothing ran)"), "{}", ran.err);
    let started: u64 = folder.read("times").split(' ').next().unwrap().parse().unwrap();
    assert!(started >= begin + 300_000_000);
    let again = folder.run("x\n", &options);
    assert!(!again.err.contains("used up"), "{}", again.err);
    let new = folder.run("x\n", &["1/1h", "--shared", "./new.limit", "--fresh", "--", "echo"]);
    assert_eq!(new.out, "x\n");
    assert!(!new.err.contains("used up"), "{}", new.err);
}

// --- Settings

#[test]
fn what_is_left_out_comes_from_the_folder_and_what_differs_is_refused() {
    let folder = Folder::new();
    let run = |options: &[&str]| folder.run("x\n", &[options, &["--", "echo"]].concat());
    let ran = run(&["20/1s", "9/1h", "--shared", "api", "--fresh", "-j3", "--abandon-grace", "1s"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for options in [
        &["--shared", "api"][..],
        &["9/1h", "20/1s", "--shared", "api", "-j2"],
        &["--shared", "api", "-j3", "--abandon-grace", "1s"],
    ] {
        let ran = run(options);
        assert_eq!((ran.code, &*ran.out), (Some(0), "x\n"), "{options:?}: {}", ran.err);
    }
    let path = state_folder(&folder, "api").display().to_string();
    let both = format!("{path} has 20/1s 9/1h, 3 tasks at once, a grace of 1000000000 ns, and ");
    let too_many = "the shared limit `api` allows 3 tasks at once, in all processes together, and -j asks \
        for 4: `ratelimit set api -j4`";
    let cases: [(&[&str], &str); 8] = [
        (&["21/1s", "--shared", "api"], &both),
        (&["--shared", "api", "--paced"], "9/1h, paced, 3 tasks at once"),
        (&["--shared", "api", "--abandon-grace", "0s"], &both),
        (&["--shared", "api", "--clock-drift", "5"], "a clock drift of 5 ppm was asked for"),
        (&["--shared", "api", "-j4"], too_many),
        (&["--shared", "other"], "has no limits yet: give at least one"),
        (&["--shared", "no name"], "is no name for a shared limit"),
        (&["1/1s", "--fresh"], "--shared <NAME|FOLDER>"),
    ];
    for (options, words) in cases {
        let ran = run(options);
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{options:?}: {}", ran.err);
        assert!(ran.err.contains(words), "{options:?}: {}", ran.err);
    }
    assert!(!state_folder(&folder, "other").exists());
    let dry = run(&["--shared", "other", "--dry-run"]);
    assert_eq!((dry.code, &*dry.out), (Some(0), "echo x\n"), "{}", dry.err);
    assert!(!state_folder(&folder, "other").exists(), "a dry run makes nothing");
    let ran = run(&["5w/1s", "--shared", "heavy", "--fresh"]);
    assert!(ran.code == Some(2) && ran.err.contains("--weight COLUMN"), "{}", ran.err);
    assert_eq!(
        call(&folder, "pipe", &["5w/1s", "--shared", "b", "--bytes", "--fresh"]).code,
        Some(0)
    );
    let ran = run(&["--shared", "b"]);
    assert!(ran.code == Some(2) && ran.err.contains("the limit 5w/1s is on weight"), "{}", ran.err);
    let ran = call(&folder, "pipe", &["--shared", "b"]);
    assert!(ran.code == Some(2) && ran.err.contains("--bytes"), "{}", ran.err);
}

#[test]
fn set_changes_the_limits_for_all_that_wait() {
    let folder = Folder::new();
    let run = folder.start(b"1\n2\n3\n", &["1/1h", "--shared", "api", "--fresh", "--", "echo"]);
    wait_for(&folder, "api", 0, 1);
    let ran = call(&folder, "set", &["api", "2/1h", "-j2"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(ran.out, "was 1/1h, 1 task at once\nis  2/1h, 2 tasks at once\n");
    folder.wait_until(|folder| status(folder, "api")["completed"].as_u64() == Some(2));
    assert_eq!(call(&folder, "set", &["api", "1000/1s"]).code, Some(0));
    let ran = end(run);
    assert_eq!((ran.code, &*ran.out), (Some(0), "1\n2\n3\n"), "{}", ran.err);
    let refused: [(&[&str], i32, &str); 3] = [
        (&["api"], 2, "required"),
        (&["api", "1/0s"], 2, "limits nothing"),
        (&["other", "1/1s"], 3, "there is no such limit"),
    ];
    for (arguments, code, words) in refused {
        let ran = call(&folder, "set", arguments);
        assert!(ran.code == Some(code) && ran.err.contains(words), "{arguments:?}: {ran:?}");
    }
}

// --- Looking

#[test]
fn the_status_tells_who_runs_who_waits_and_how_full_it_is_and_changes_nothing() {
    let folder = Folder::new();
    let runs = blocked(&folder, 1, &["20/1s", "7/1h", "--shared", "api", "--fresh"]);
    wait_for(&folder, "api", 1, 0);
    let waits = blocked(&folder, 1, &["--shared", "api"]);
    wait_for(&folder, "api", 1, 1);
    let before = fs::read(state_folder(&folder, "api").join("state")).unwrap();
    let seen = status(&folder, "api");
    assert_eq!(
        seen["limits"][1],
        serde_json::json!({
            "limit": "7/1h", "unit": "task", "rate": 7, "per_ns": 3_600_000_000_000_u64, "held": 1,
        })
    );
    let (holder, waiter) = (&seen["holders"][0], &seen["waiters"][0]);
    assert_eq!(holder["pid"].as_u64(), Some(u64::from(runs.id())));
    assert_eq!(waiter["pid"].as_u64(), Some(u64::from(waits.id())));
    assert_eq!((&holder["state"], &holder["weight"]), (&"alive".into(), &1.into()));
    assert!(holder["since_ns"].as_u64().unwrap() > 0);
    assert!(holder["command"].as_str().unwrap().contains("run 20/1s 7/1h --shared api"));
    assert_eq!((&seen["opens_in_ns"], &seen["paused_for_ns"]), (&Value::Null, &0.into()));
    assert_eq!((&seen["running"], &seen["concurrency"]), (&1.into(), &1.into()));
    let path = state_folder(&folder, "api");
    let shown = call(&folder, "status", &[path.to_str().unwrap()]);
    let lines = [
        "  20/1s  [=                             ] 1 of 20",
        "  7/1h   [====                          ] 1 of 7",
        "  1 running task of 1 at once, 1 waiting, 0 done",
        "  opens when a running task has ended",
        "running:",
        &format!("  process {} for ", runs.id()),
        "waiting, the next first:",
        &format!("  1. process {}: ", waits.id()),
    ];
    for line in lines {
        assert!(shown.out.contains(&format!("\n{line}")), "{line}: {}", shown.out);
    }
    assert!(fs::read(path.join("state")).unwrap() == before);
    folder.write("go", "");
    assert_eq!((end(runs).code, end(waits).code), (Some(0), Some(0)));
    let seen = status(&folder, "api");
    assert_eq!(seen["holders"], Value::Array(vec![]));
    assert_eq!(seen["opens_in_ns"].as_u64(), Some(0));
    let ran = call(&folder, "status", &["other"]);
    assert!(ran.code == Some(3) && ran.err.contains("there is no such limit"), "{ran:?}");
}

#[test]
fn a_watch_shows_it_again_and_again_until_nobody_reads() {
    let folder = Folder::new();
    folder.run("x\n", &["20/1s", "--shared", "api", "--fresh", "--", "true"]);
    let mut watch = folder.subcommand("status", &["api", "--watch", "--json"]).spawn().unwrap();
    let mut out = BufReader::new(watch.stdout.take().unwrap());
    for _ in 0..2 {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let seen: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(seen["completed"].as_u64(), Some(1));
    }
    drop(out);
    assert_eq!(end(watch).code, Some(141));
    // On a terminal it is drawn from the top left corner on.
    let mut terminal = folder.script("exec script -qefc '\"$R\" status api --watch' /dev/null");
    terminal.env("TERM", "xterm").env("SHELL", "/bin/sh").stdin(Stdio::piped());
    let mut terminal = terminal.spawn().unwrap();
    let mut out = BufReader::new(terminal.stdout.take().unwrap());
    let mut shown = String::new();
    while shown.matches("\x1b[H").count() < 2 {
        assert!(out.read_line(&mut shown).unwrap() > 0, "{shown}");
    }
    assert!(shown.contains("1 done"), "{shown}");
    // Ctrl-C.
    terminal.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    assert_ne!(terminal.wait().unwrap().code(), Some(0));
}

// --- Forgetting

#[test]
fn forgetting_says_what_follows_and_asks() {
    let folder = Folder::new();
    let runs = blocked(&folder, 2, &["1/1h", "--shared", "api", "--fresh", "-j1"]);
    wait_for(&folder, "api", 1, 0);
    let waits = folder.start(b"1\n2\n3\n", &["--shared", "api", "--", "echo"]);
    wait_for(&folder, "api", 1, 1);
    let ran = call(&folder, "forget", &["api"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    let follows = [
        "api.limit has 1/1h, 1 task at once\n",
        "1 running task would no longer be counted; what starts next does not wait for:\n",
        &format!("  process {} for ", runs.id()),
        "1 waiting task would end with an error:\n",
        &format!("  1. process {}: ", waits.id()),
        "its limits count as used up then, and its first task waits up to 1h\n",
        "`ratelimit forget --yes api` does not ask",
    ];
    for words in follows {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
    let asked = |answer: &str| {
        let script = "printf \"$ANSWER\\n\" | script -qec '\"$R\" forget api' /dev/null";
        let mut command = folder.script(script);
        end(command.env("ANSWER", answer).env("SHELL", "/bin/sh").spawn().unwrap())
    };
    for answer in ["", "no"] {
        let ran = asked(answer);
        assert!(ran.code == Some(1) && ran.out.contains("nothing was changed"), "{ran:?}");
    }
    assert!(state_folder(&folder, "api").exists());
    let ran = asked("y");
    assert!(ran.code == Some(0) && ran.out.contains("api.limit is forgotten"), "{ran:?}");
    assert!(!state_folder(&folder, "api").exists());
    // What waited says so, and loses nothing silently.
    let ran = end(waits);
    assert_eq!((ran.code, &*ran.out), (Some(3), ""), "{}", ran.err);
    assert!(ran.err.contains("3 never started"), "{}", ran.err);
    assert!(
        ran.err.contains("the shared limit fails, so nothing more is started: "),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("was removed or replaced while it was in use"), "{}", ran.err);
    folder.write("go", "");
    let ran = end(runs);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains("1 ok, 0 failed, 1 never started"), "{}", ran.err);
    let ran = call(&folder, "forget", &["api", "--yes"]);
    assert!(ran.code == Some(3) && ran.err.contains("there is no such limit"), "{ran:?}");
}
