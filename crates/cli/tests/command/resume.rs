//! Resuming after a run was killed. The real binary, killed for real.
//!
//! Processes need real time, so no test depends on speed. A test asserts only that nothing starts too early,
//! and waits only for events that the run causes.

use std::io::Write;
use std::time::Duration;

use crate::support::{Folder, HEADER, Row, assert_clean, end, now_ns};

/// Goes on with a log, and says how long after it was called the first task started.
fn first_start(folder: &Folder, input: &str, options: &[&str]) -> Duration {
    let known = folder.read("log.csv").lines().count().saturating_sub(1);
    let called = now_ns();
    let log = ["--resume", "--log", "log.csv"];
    let ran = folder.run(input, &[options, &log, &["--", "true"]].concat());
    assert!(ran.code <= Some(1), "{}", ran.err);
    let rows = folder.log("log.csv");
    let first = rows[known..].iter().map(|row| row.record.start).min().unwrap();
    Duration::from_nanos(first - called)
}

#[test]
fn a_killed_run_loses_no_finished_row_and_its_resumption_never_bursts() {
    let folder = Folder::new();
    let limit = "10/250ms";
    let items: Vec<_> = (1..=40).map(|item| format!("item {item}")).collect();
    folder.write("items", items.join("\n"));
    let options = [limit, "-i", "items", "--log", "log.csv", "--shell", "--", "echo {} >> out"];
    for enough_rows in [5, 14] {
        let resume = ["--resume"];
        let options = [&resume[..], &options[..]].concat();
        let mut child = folder.start(b"", &options);
        folder.wait_until(|folder| folder.read("log.csv").lines().count() > enough_rows);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // And the last row of the killed run was torn.
    let mut log = folder.read("log.csv");
    log.truncate(log.trim_end().len() - 3);
    folder.write("log.csv", &log);

    let ran = folder.run("", &[&["--resume"], &options[..]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("skipped in"), "{}", ran.err);
    let rows = folder.log("log.csv");
    assert_clean(&rows, &[limit]);
    let done: Vec<_> = rows.iter().map(|row| &row.input).collect();
    assert_eq!(done, items.iter().collect::<Vec<_>>(), "each has ended well, and once");
    let again = folder.run("", &[&["--resume"], &options[..]].concat());
    assert!(again.err.contains("0 tasks: 0 ok, 0 failed, 40 skipped"), "{}", again.err);
}

#[test]
fn what_failed_is_run_again_on_resume_and_what_was_cut_off_counts() {
    let folder = Folder::new();
    let options = ["3/300ms", "--log", "log.csv", "--shell", "--", "[ -e mended ] || [ {} != b ]"];
    assert_eq!(folder.run("a\nb\nb\nc\n", &options).code, Some(1));
    folder.write("mended", "");
    let ran = folder.run("a\nb\nb\nc\n", &[&["--resume"], &options[..]].concat());
    assert_eq!(ran.code, Some(0));
    assert!(ran.err.contains("2 tasks: 2 ok, 0 failed, 2 skipped"), "{}", ran.err);
    let rows = folder.log("log.csv");
    let inputs: Vec<_> = rows.iter().map(|row| row.input.as_str()).collect();
    assert_eq!(inputs, ["a", "b", "b", "c", "b", "b"]);
    assert_clean(&rows, &["3/300ms"]);
    // The one that might have been running when the first run ended counts as a third.
    let resumed: Vec<Row> = rows[4..].to_vec();
    assert_clean(&resumed, &["2/300ms"]);
}

#[test]
fn a_run_that_was_killed_before_its_first_row_counts_as_well() {
    let folder = Folder::new();
    let script = "echo >> counted; [ {} = now ] || while [ ! -e go ]; do sleep 0.01; done";
    let options = ["2/1s", "-j2", "--log", "log.csv", "--resume", "--shell", "--", script];
    let mut child = folder.start(b"1\n2\n3\n", &options);
    folder.wait_until(|folder| folder.read("counted").lines().count() == 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = now_ns();
    folder.write("go", "");
    assert_eq!(folder.read("log.csv"), HEADER, "no row, but a run began");
    let ran = folder.run("now\nnow\n", &options);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let starts = folder.log("log.csv").iter().map(|row| row.record.start).min().unwrap();
    assert!(starts - killed > 1_000_000_000, "a second after the last that may have been counted");
}

#[test]
fn a_header_that_was_torn_is_a_run_that_began_and_an_empty_file_is_none() {
    let folder = Folder::new();
    for torn in ["s", "seq,start_ns,end", HEADER.trim_end(), HEADER] {
        folder.write("log.csv", torn);
        let waited = first_start(&folder, "a\n", &["1/300ms"]);
        assert!(waited > Duration::from_millis(300), "{torn:?}: {waited:?}");
    }
    folder.write("log.csv", "");
    first_start(&folder, "a\n", &["1/1h"]);
}

#[test]
fn the_heaviest_of_all_that_may_have_been_running_count() {
    let folder = Folder::new();
    let limit = ["10w/400ms", "--weight", "1"];
    let waited = |log: &str, input: &str, options: &[&str]| {
        folder.write("log.csv", log);
        first_start(&folder, input, &[&limit[..], options].concat())
    };
    let per = Duration::from_millis(400);
    // The second of two: 1 + 9 leave no room for the first.
    assert!(waited(HEADER, "1\n9\n", &["-j2"]) > per);
    // The first has failed before, so that it may have been the second at -j1.
    let failed = format!("{HEADER}1,5,6,1,7,1\n");
    assert!(waited(&failed, "1\n10\n", &[]) > per);
    // One that failed may have been tried again: it is in no input any more.
    let failed = format!("{HEADER}1,5,6,10,7,\"10,x\"\n");
    assert!(waited(&failed, "1\n", &[]) > per);
    // What can never run was not running: the one behind it was.
    assert!(waited(HEADER, "0\n10\n", &[]) > per);
}

#[test]
fn the_grace_of_what_was_killed_outlives_its_run() {
    let folder = Folder::new();
    let options = ["1/10ms", "--abandon-grace", "700ms", "--log", "log.csv", "--resume"];
    let killed = ["--timeout", "50ms", "--", "sleep", "60"];
    assert_eq!(folder.run("1\n", &[&options[..], &killed[..]].concat()).code, Some(1));
    let ran = folder.run("1\n", &[&options[..], &["--", "true"]].concat());
    assert!(ran.err.contains("for the grace of a command that was killed"), "{}", ran.err);
    let rows = folder.log("log.csv");
    let gap = Duration::from_nanos(rows[1].record.start - rows[0].record.end);
    assert!(gap > Duration::from_millis(710), "{gap:?}");
}

#[test]
fn what_is_still_to_be_run_starts_as_it_comes() {
    let folder = Folder::new();
    // A new log, one with a header, and one with rows.
    for (name, log) in
        [("new", ""), ("header", HEADER), ("rows", &format!("{HEADER}1,5,6,1,0,x\n"))]
    {
        folder.write("log.csv", log);
        let script = format!(": > {name}-{{}}");
        let options = ["100/1ms", "-j8", "--log", "log.csv", "--resume", "--shell", "--", &script];
        let mut child = folder.command(&options).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        for item in ["a", "b"] {
            writeln!(input, "{item}").unwrap();
            // The next one is not given before this one has run.
            folder.wait_until(|folder| folder.path(&format!("{name}-{item}")).exists());
        }
        drop(input);
        assert_eq!(end(child).code, Some(0));
    }
}

#[test]
fn weights_that_are_not_known_yet_count_as_the_heaviest_there_can_be() {
    let folder = Folder::new();
    folder.write("log.csv", HEADER);
    let called = now_ns();
    let options = ["10w/500ms", "-j2", "--weight", "1", "--log", "log.csv", "--resume"];
    let mut child = folder.command(&[&options[..], &["--", "true"]].concat()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "1").unwrap();
    // The second, which may have been running, is not given before the first has run.
    folder.wait_until(|folder| folder.read("log.csv").lines().count() == 2);
    let start = folder.log("log.csv")[0].record.start;
    assert!(start - called > 500_000_000, "it took the whole window");
    drop(input);
    assert_eq!(end(child).code, Some(0));

    // Once as many as may have been running are known, it is their weights that count.
    folder.write("log.csv", HEADER);
    let options = ["10w/1h", "-j2", "--weight", "1", "--log", "log.csv", "--resume"];
    let mut child = folder.command(&[&options[..], &["--", "true"]].concat()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"1\n2\n").unwrap();
    folder.wait_until(|folder| folder.read("log.csv").lines().count() == 3);
    drop(input);
    assert_eq!(end(child).code, Some(0));
}
