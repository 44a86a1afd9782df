//! How commands and runs end: signals, timeouts, whole process groups, graces, and what is said of it.
//!
//! The real binary and real time. No assertion depends on how fast anything is; what waits, waits for
//! something that the run does.

use std::io::{BufRead, BufReader, Write};
use std::process::Child;
use std::time::Duration;

use crate::support::{FREE, Folder, end, gaps};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

// --- Interrupts

/// Starts a run of tasks that each wait for the file `go`, and returns once the first is running.
fn waiting_tasks(folder: &Folder, options: &[&str]) -> std::process::Child {
    let script = ": > running-{}; while [ ! -e go ]; do sleep 0.01; done";
    let all = [&[FREE, "--log", "log.csv", "--shell"], options, &["--", script]].concat();
    let child = folder.start(b"1\n2\n3\n4\n", &all);
    folder.wait_until(|folder| folder.path("running-1").exists());
    child
}

fn next_line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

#[test]
fn interrupted_once_what_runs_ends_and_nothing_more_is_started() {
    for (kill, code) in
        [(Signal::INT, 130), (Signal::TERM, 143), (Signal::QUIT, 131), (Signal::HUP, 129)]
    {
        let folder = Folder::new();
        let mut child = waiting_tasks(&folder, &["-j2", "--retries", "5"]);
        folder.wait_until(|folder| folder.path("running-2").exists());
        signal(&child, kill);
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let told = next_line(&mut err);
        assert_eq!(told, "ratelimit: waiting for what runs; interrupt again to kill it\n");
        folder.write("go", "");
        assert_eq!(end(child).code, Some(code));
        let summary = next_line(&mut err);
        assert!(
            summary.starts_with("ratelimit: 2 tasks: 2 ok, 0 failed, 2 never started in"),
            "{summary}"
        );
        assert_eq!(folder.log("log.csv").len(), 2);
        assert!(!folder.path("running-3").exists());
    }
}

#[test]
fn interrupted_twice_what_runs_is_killed() {
    let folder = Folder::new();
    let mut child = waiting_tasks(&folder, &[]);
    signal(&child, Signal::INT);
    let told = next_line(&mut BufReader::new(child.stderr.as_mut().unwrap()));
    assert!(told.contains("interrupt again"), "{told}");
    signal(&child, Signal::INT);
    assert_eq!(end(child).code, Some(130));
    let rows = folder.log("log.csv");
    assert_eq!((rows.len(), rows[0].exit_code), (1, 143), "killed by SIGTERM, and logged");
}

#[test]
fn an_interrupt_ends_a_run_that_waits_for_input_or_for_its_window() {
    let folder = Folder::new();
    let mut child = folder.command(&["1/1h", "--log", "log.csv", "--", "true"]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"1\n2\n").unwrap();
    folder.wait_until(|folder| folder.read("log.csv").lines().count() == 2);
    signal(&child, Signal::INT);
    assert_eq!(end(child).code, Some(130));
    drop(input);
}

#[test]
fn a_hang_up_never_kills_however_often_it_comes() {
    let folder = Folder::new();
    let mut child = waiting_tasks(&folder, &[]);
    signal(&child, Signal::HUP);
    let mut err = BufReader::new(child.stderr.take().unwrap());
    assert!(next_line(&mut err).contains("interrupt again"));
    signal(&child, Signal::HUP);
    signal(&child, Signal::CONT);
    folder.write("go", "");
    assert_eq!(end(child).code, Some(129));
    assert_eq!(folder.log("log.csv")[0].exit_code, 0, "it ended by itself");
}

#[test]
fn a_hang_up_that_is_ignored_from_the_start_stays_ignored() {
    let folder = Folder::new();
    let command = "\"$R\" run 1000000/1s -q --log log.csv -i items --shell -- \
        ': > running-{}; until [ -e go ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done'";
    folder.write("items", "1\n2\n");
    let child = folder.script(&format!("trap '' HUP; exec {command}")).spawn().unwrap();
    folder.wait_until(|folder| folder.path("running-1").exists());
    signal(&child, Signal::HUP);
    folder.write("go", "");
    assert_eq!(end(child).code, Some(0));
    assert_eq!(folder.log("log.csv").len(), 2, "the second was started after it");
}

// --- Killing

#[test]
fn a_command_over_its_time_is_killed_with_all_that_it_started() {
    let folder = Folder::new();
    let script = "echo $$ > pid; sleep 60 & wait; : {}";
    let options = [FREE, "--timeout", "50ms", "--log", "log.csv", "--shell", "--", script];
    let ran = folder.run("x\n", &options);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("line 1, `x`: killed: it took longer than 50ms"), "{}", ran.err);
    assert_eq!(folder.log("log.csv")[0].exit_code, 124);
    let group = Pid::from_raw(folder.read("pid").trim().parse().unwrap()).unwrap();
    folder.wait_until(|_| rustix::process::test_kill_process_group(group).is_err());
}

#[test]
fn a_command_that_ignores_being_asked_to_end_is_made_to() {
    let folder = Folder::new();
    let script = "trap '' TERM; while : {}; do sleep 0.01; done";
    let options = [FREE, "--timeout", "50ms", "--log", "log.csv", "--shell", "--", script];
    folder.run("x\n", &options);
    assert_eq!(folder.log("log.csv")[0].exit_code, 124);
}

#[test]
fn a_command_ended_by_a_signal_says_which() {
    let folder = Folder::new();
    let options = [FREE, "--log", "log.csv", "--shell", "--", "kill -USR1 $$; : {}"];
    let ran = folder.run("x\n", &options);
    assert!(ran.err.contains("line 1, `x`: ended by signal 10"), "{}", ran.err);
    assert_eq!(folder.log("log.csv")[0].exit_code, 138);
}

/// Whether a process is there and has not ended.
fn is_alive(id: &str) -> bool {
    let id = Pid::from_raw(id.trim().parse().unwrap()).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    test_kill_process(id).is_ok() && !stat.contains(") Z")
}

/// A command whose leader dies when it is asked to, and whose child does not.
const STUBBORN_CHILD: &str = "(trap '' TERM; echo begun > begun; while :; do sleep 0.01; done) & \
    echo $! > child; wait; : {}";

#[test]
fn a_timeout_makes_all_of_the_group_end_though_its_leader_is_dead_already() {
    let folder = Folder::new();
    let options = [FREE, "--timeout", "2s", "--log", "log.csv", "--shell", "--", STUBBORN_CHILD];
    folder.run("x\n", &options);
    assert_eq!(folder.log("log.csv")[0].exit_code, 124);
    assert_eq!(folder.read("begun"), "begun\n");
    assert_is_made_to_end(&folder);
}

#[test]
fn a_second_interrupt_makes_all_of_the_group_end_though_its_leader_is_dead_already() {
    let folder = Folder::new();
    let mut child = folder.start(b"x\n", &[FREE, "--shell", "--", STUBBORN_CHILD]);
    folder.wait_until(|folder| {
        folder.read("begun") == "begun\n" && folder.read("child").ends_with('\n')
    });
    signal(&child, Signal::INT);
    next_line(&mut BufReader::new(child.stderr.as_mut().unwrap()));
    signal(&child, Signal::INT);
    assert_eq!(end(child).code, Some(130));
    assert_is_made_to_end(&folder);
}

/// Deadline only to detect that it never does.
fn assert_is_made_to_end(folder: &Folder) {
    let child = folder.read("child");
    for _ in 0..1_000 {
        if !is_alive(&child) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_raw(child.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    panic!("it goes on");
}

#[test]
fn a_child_that_cleans_up_when_asked_to_end_has_the_time_for_it() {
    let folder = Folder::new();
    let script = "(trap 'sleep 0.2; : > cleaned; exit' TERM; : > ready; while :; do sleep 0.01; done) & \
        until [ -e ready ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done; sleep 60; : {}";
    folder.run("x\n", &[FREE, "--timeout", "2s", "--shell", "--", script]);
    assert!(folder.path("cleaned").exists(), "its leader was dead long before");
}

#[test]
fn a_stopped_command_can_be_killed() {
    let folder = Folder::new();
    let script = "trap ': > asked; exit 1' TERM; kill -STOP $$; : {}";
    let options = [FREE, "--timeout", "1s", "--log", "log.csv", "--shell", "--", script];
    folder.run("x\n", &options);
    assert_eq!(folder.log("log.csv")[0].exit_code, 124);
    assert!(folder.path("asked").exists(), "it goes on, and hears that it is to end");
}

// --- The grace of what was abandoned

#[test]
fn a_killed_command_counts_as_running_until_its_grace_is_over() {
    let folder = Folder::new();
    let options = ["1/10ms", "--timeout", "20ms", "--abandon-grace", "150ms", "--log", "log.csv"];
    folder.run("1\n2\n", &[&options[..], &["--", "sleep", "60"]].concat());
    assert!(gaps(&folder.log("log.csv"))[0] > Duration::from_millis(160));
}

#[test]
fn a_command_that_dies_by_any_signal_has_its_grace_also_if_others_sent_it() {
    for script in ["kill -KILL $$", "kill -TERM $$", "sh -c 'kill -KILL $$'; exit $?"] {
        let folder = Folder::new();
        let options = ["1/10ms", "--abandon-grace", "300ms", "--log", "log.csv", "--"];
        folder.run("1\n2\n", &[&options[..], &["sh", "-c", script]].concat());
        assert!(gaps(&folder.log("log.csv"))[0] > Duration::from_millis(310), "{script}");
    }
    let folder = Folder::new();
    let options =
        ["1/10ms", "--abandon-grace", "1h", "--log", "log.csv", "--", "sh", "-c", "exit 128"];
    assert_eq!(folder.run("1\n2\n", &options).code, Some(1), "it has failed, and completed");
}

#[test]
fn commands_are_waited_for_where_their_end_is_ignored_from_the_start() {
    let folder = Folder::new();
    folder.write("items", "1\n2\n3\n");
    let script =
        "trap '' CHLD; exec \"$R\" run 1000000/1s -i items --log log.csv -- sh -c 'exit 7' x";
    let ran = folder.sh(script);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let codes: Vec<_> = folder.log("log.csv").iter().map(|row| row.exit_code).collect();
    assert_eq!(codes, [7, 7, 7]);
}

// --- What is said of it

#[test]
fn the_summary_names_the_first_that_failed_and_counts_what_never_started() {
    let folder = Folder::new();
    let ran = folder.run("0\n7\n0\n0\n", &[FREE, "--halt", "--shell", "--", "exit {}"]);
    let said: Vec<_> = ran.err.lines().collect();
    assert!(
        said[0].starts_with("ratelimit: 2 tasks: 1 ok, 1 failed, 2 never started in "),
        "{said:?}"
    );
    assert_eq!(said[1..], ["ratelimit: failed: line 2, `7`: exit code 7"]);

    let items: String = (1..=500).map(|item: i32| item.to_string() + "\n").collect();
    let ran = folder.run(items, &[FREE, "-j2", "--", "false"]);
    assert_eq!(ran.err.lines().count(), 12, "{}", ran.err);
    assert!(ran.err.ends_with("failed: 490 more (a --log names them all)\n"), "{}", ran.err);
}

#[test]
fn what_is_still_to_come_of_an_input_is_not_made_up() {
    let folder = Folder::new();
    let mut child = folder.command(&["1/1h", "--log", "log.csv", "--", "true"]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"1\n2\n3\n").unwrap();
    folder.wait_until(|folder| folder.read("log.csv").lines().count() == 2);
    signal(&child, Signal::INT);
    let ran = end(child);
    assert!(ran.err.contains("1 ok, 0 failed, 2 or more never started in"), "{}", ran.err);
    drop(input);
}

#[test]
fn a_giant_item_is_never_printed_nor_what_moves_the_cursor_about() {
    let folder = Folder::new();
    let giant = "x".repeat(3_000_000);
    let ran = folder.run(&giant, &[FREE, "--", "true"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.len() < 1_000, "{} bytes", ran.err.len());
    assert!(ran.err.contains("Argument list too long"), "{}", ran.err);
    let ran = folder.run(&giant[..100_000], &[FREE, "--", "{}"]);
    assert!(ran.err.len() < 1_000, "{} bytes", ran.err.len());
    let ran = folder.run("\x1b[2J\r0\n", &[FREE, "--", "false"]);
    assert!(ran.err.contains("`\\u{1b}[2J\\r0`"), "{}", ran.err);
}
