//! The log as a file: refused, locked, full, and written in time. The real binary, real processes.

use std::fs::File;
use std::time::Duration;

use crate::support::{FREE, Folder, HEADER, end, now_ns};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

#[test]
fn a_log_is_neither_overwritten_nor_shared() {
    let folder = Folder::new();
    let options = [FREE, "--log", "log.csv", "--", "true"];
    assert_eq!(folder.run("a\n", &options).code, Some(0));
    let before = folder.read("log.csv");
    let ran = folder.run("a\n", &options);
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("it exists; go on with it (--resume), or remove it"), "{}", ran.err);

    let in_use = File::open(folder.path("log.csv")).unwrap();
    in_use.lock().unwrap();
    let ran = folder.run("a\n", &[&["--resume"], &options[..]].concat());
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("another run is writing it"), "{}", ran.err);
    assert_eq!(folder.read("log.csv"), before);
}

#[test]
fn a_log_that_cannot_be_written_stops_the_run_and_says_so() {
    let folder = Folder::new();
    std::os::unix::fs::symlink("/dev/full", folder.path("log.csv")).unwrap();
    let ran = folder.run("a\nb\n", &[FREE, "--log", "log.csv", "--", "echo"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("cannot use the log log.csv: No space left"), "{}", ran.err);
}

#[test]
fn a_file_that_is_no_log_is_left_as_it_is() {
    let folder = Folder::new();
    let texts = ["important text, no newline", "text\n", "\n\n", "{\"json\":1}", "seq,other"];
    for text in texts {
        folder.write("log.csv", text);
        let ran = folder.run("1\n2\n", &[FREE, "--log", "log.csv", "--resume", "--", "echo"]);
        assert_eq!((ran.out.as_str(), ran.code), ("", Some(3)), "{text:?}: {}", ran.err);
        assert!(ran.err.contains("line 1: this is not the header of a log"), "{}", ran.err);
        assert_eq!(folder.read("log.csv"), text);
    }
}

#[test]
fn a_usage_error_that_the_first_record_shows_leaves_the_log_as_it_is() {
    let folder = Folder::new();
    folder.write("log.csv", format!("{HEADER}1,5,6,1,0,torn"));
    let options = [FREE, "--csv", "--log", "log.csv", "--resume", "--", "echo", "{nope}"];
    assert_eq!(folder.run("a\n1\n", &options).code, Some(2));
    assert_eq!(folder.read("log.csv"), format!("{HEADER}1,5,6,1,0,torn"));
}

#[cfg(target_os = "linux")] // The limit is changed from outside.
#[test]
fn a_log_that_was_full_for_a_moment_holds_whole_rows_and_is_gone_on_with() {
    // Whether there is room again before the row has failed is up to the machine; then it is done again.
    assert!((0..100).any(|_| was_full_for_a_moment()), "no write ever failed");
}

/// Whether a row failed.
#[cfg(target_os = "linux")]
fn was_full_for_a_moment() -> bool {
    let folder = Folder::new();
    // Three at once; each ends when it is told to. There is room for the header and one row.
    let item = "x".repeat(300);
    let input = format!("1-{item}\n2-{item}\n3-{item}\n");
    let script = "x={}; n=${x%%-*}; : > running-$n; while [ ! -e go-$n ]; do sleep 0.01; done";
    let options = [FREE, "-j3", "--log", "log.csv", "--shell", "--", script];
    let child = folder.start(input.as_bytes(), &options);
    folder.wait_until(|folder| (1..=3).all(|n| folder.path(&format!("running-{n}")).exists()));
    let pid = Some(Pid::from_child(&child));
    let limit = |bytes| Rlimit { current: Some(bytes), maximum: None };
    prlimit(pid, Resource::Fsize, limit(500)).unwrap();
    folder.write("go-1", "");
    folder.wait_until(|folder| folder.read("log.csv").lines().count() == 2);
    // The second row is written in part, and fails.
    let changed = |folder: &Folder| folder.path("log.csv").metadata().unwrap().modified().unwrap();
    let before = changed(&folder);
    folder.write("go-2", "");
    folder.wait_until(|folder| changed(folder) != before);
    // Then there is room again, and the third ends.
    prlimit(pid, Resource::Fsize, limit(1_000_000)).unwrap();
    folder.write("go-3", "");
    let ran = end(child);
    if ran.code == Some(0) {
        return false;
    }
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains("cannot use the log log.csv: File too large"), "{}", ran.err);
    let inputs =
        || folder.log("log.csv").iter().map(|row| row.input[..1].to_owned()).collect::<String>();
    assert_eq!(inputs(), "123", "the row that failed came with the next");
    folder.write("go-4", "");
    let all = format!("{input}4-{item}\n");
    let ran = folder.run(all, &[&["--resume"], &options[..]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(inputs(), "1234");
    true
}

#[test]
fn a_log_that_stays_full_ends_with_a_whole_row() {
    let folder = Folder::new();
    let item = "x".repeat(200);
    let input = (1..=20).map(|n| format!("{n}-{item}\n")).collect::<Vec<_>>().concat();
    for concurrency in ["1", "4"] {
        let log = format!("log-{concurrency}.csv");
        let script = format!(
            "ulimit -f 2; exec \"$0\" run {FREE} -j{concurrency} --log {log} -q -- true {{}}"
        );
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_ratelimit")]);
        folder.write("items", &input);
        let child = command
            .current_dir(folder.path(""))
            .stdin(File::open(folder.path("items")).unwrap())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let ran = end(child);
        assert_eq!(ran.code, Some(3), "{}", ran.err);
        let rows = folder.log(&log);
        assert!((1..20).contains(&rows.len()));
        assert!(folder.read(&log).ends_with(&format!("-{item}\n")), "a whole row");
        let resume = [FREE, "--resume", "-i", "items", "--log", &log, "--", "true"];
        assert_eq!(folder.run("", &resume).code, Some(0));
        let mut inputs: Vec<_> = folder.log(&log).into_iter().map(|row| row.input).collect();
        inputs.sort_by_key(|input| input.split('-').next().unwrap().parse::<u64>().unwrap());
        assert_eq!(inputs.join("\n") + "\n", input, "each has run well, and once");
    }
}

#[cfg(target_os = "linux")] // /proc says when it has been opened.
#[test]
fn a_lock_that_is_let_go_of_is_waited_for() {
    let folder = Folder::new();
    folder.write("log.csv", HEADER);
    let held = File::open(folder.path("log.csv")).unwrap();
    held.lock().unwrap();
    let mut child = folder.start(b"a\n", &[FREE, "--log", "log.csv", "--resume", "--", "true"]);
    let descriptors = format!("/proc/{}/fd", child.id());
    let has_opened = || {
        let files = std::fs::read_dir(&descriptors).into_iter().flatten().flatten();
        files.flat_map(|file| std::fs::read_link(file.path())).any(|path| path.ends_with("log.csv"))
    };
    while !has_opened() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    held.unlock().unwrap();
    assert_eq!(end(child).code, Some(0));
}

// --- The times in it

#[cfg(target_os = "linux")] // /proc says what a process is about.
#[test]
fn a_task_starts_in_the_log_before_its_process_is_there() {
    // The process is caught between its fork and its exec, which looks through a long PATH, and stopped: it is
    // there, and yet `spawn` has not returned.
    let folder = Folder::new();
    std::fs::create_dir(folder.path("bin")).unwrap();
    std::os::unix::fs::symlink("/bin/true", folder.path("bin/last")).unwrap();
    let path = "/no:".repeat(20_000) + folder.path("bin").to_str().unwrap();
    let input = "x\n".repeat(500);
    folder.write("items", input);
    let options = [FREE, "-i", "items", "--log", "log.csv", "--", "last"];
    let mut child = folder.command(&options).env("PATH", path).spawn().unwrap();
    let pid = child.id();
    let (stopped, seen) = loop {
        if let Some(found) = stop_before_exec(pid) {
            break found;
        }
        assert!(child.try_wait().unwrap().is_none(), "never caught between fork and exec");
    };
    let rows = folder.read("log.csv").lines().count();
    // It has been there for a while.
    std::thread::sleep(Duration::from_millis(50));
    kill_process(stopped, Signal::CONT).unwrap();
    folder.wait_until(|folder| folder.read("log.csv").lines().count() > rows);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(end(child).code, Some(130));
    let row = folder.log("log.csv").swap_remove(rows - 1);
    assert!(row.record.start < seen, "it started {} ns late", row.record.start - seen);
}

/// Stops a child of a process that has not begun its program yet. When it was there, by the wall clock.
#[cfg(target_os = "linux")]
fn stop_before_exec(parent: u32) -> Option<(Pid, u64)> {
    let children =
        std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let child: i32 = children.split_whitespace().next()?.parse().ok()?;
    let seen = now_ns();
    let program = |pid: &str| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let parents = program(&parent.to_string())?;
    let is_before = || program(&child.to_string()).is_some_and(|program| program == parents);
    let pid = Pid::from_raw(child)?;
    if !is_before() {
        return None;
    }
    kill_process(pid, Signal::STOP).ok()?;
    let is_stopped = || {
        let status = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        status.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['T', 'Z', 'X']))
    };
    while !is_stopped() {
        std::thread::yield_now();
    }
    if is_before() {
        return Some((pid, seen));
    }
    let _ = kill_process(pid, Signal::CONT);
    None
}
