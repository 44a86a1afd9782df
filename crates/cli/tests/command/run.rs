//! `ratelimit run`, the real binary, through its whole surface.
//!
//! Time is real here: processes are. No assertion depends on how fast they are; what waits, waits
//! for something that the run does.

use std::time::Duration;

use crate::support::{FREE, Folder, Ran, assert_clean, gaps, most_at_once};

// --- Items and the command

#[test]
fn each_line_is_an_item_in_order_under_the_limit() {
    let folder = Folder::new();
    let input: String = (1..=60).map(|item| item.to_string() + "\n").collect();
    let ran = folder.run(&input, &["20/200ms", "--log", "log.csv", "--", "echo", "{}"]);
    assert_eq!((ran.out, ran.code), (input, Some(0)));
    assert!(ran.err.starts_with("ratelimit: 60 tasks: 60 ok, 0 failed in "), "{}", ran.err);
    let rows = folder.log("log.csv");
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), (1..=60).collect::<Vec<_>>());
    assert_eq!(most_at_once(&rows), 1);
    assert_clean(&rows, &["20/200ms"]);
}

#[test]
fn a_command_reads_no_items_from_standard_input() {
    let ran = Folder::new().run("a\nb\n", &[FREE, "--shell", "--", "cat; echo {}"]);
    assert_eq!(ran.out, "a\nb\n");
}

#[test]
fn empty_input_is_no_failure() {
    let Ran { out, err, code } = Folder::new().run("", &[FREE, "--", "false"]);
    assert_eq!((out.as_str(), code), ("", Some(0)));
    assert!(err.starts_with("ratelimit: 0 tasks: 0 ok, 0 failed in "), "{err}");
    let ran = Folder::new().run("a\n", &["-q", FREE, "--", "true"]);
    assert_eq!(ran.err, "", "quiet");
}

// --- Concurrency, order, output

#[test]
fn output_is_whole_and_in_the_order_of_the_items() {
    let folder = Folder::new();
    // Later items end first: each waits for the one after it.
    let script = "echo {} begins; \
        n={}; while [ $n != 4 ] && [ ! -e ended-$((n + 1)) ]; do sleep 0.01; done; \
        echo {} ends >&2; head -c 100000 /dev/zero | tr '\\0' {}; echo; : > ended-{}";
    let options = [FREE, "-j4", "-q", "--log", "log.csv", "--shell", "--", script];
    let ran = folder.run("1\n2\n3\n4\n", &options);
    let block = |item: &str| format!("{item} begins\n{}\n", item.repeat(100_000));
    assert_eq!(ran.out, ["1", "2", "3", "4"].map(block).concat());
    assert_eq!(ran.err, "1 ends\n2 ends\n3 ends\n4 ends\n");
    let rows = folder.log("log.csv");
    assert_eq!(rows[0].input, "4", "the last was first to end");
    assert_eq!(most_at_once(&rows), 4);
}

#[test]
fn concurrency_is_bounded_and_the_law_holds_at_any() {
    let folder = Folder::new();
    let input = "x\n".repeat(60);
    folder.run(&input, &["12/100ms", "-j5", "--log", "log.csv", "--", "sleep", "0.00{#}", "0"]);
    let rows = folder.log("log.csv");
    assert_eq!(rows.len(), 60);
    assert!(most_at_once(&rows) <= 5);
    assert_clean(&rows, &["12/100ms"]);
}

#[test]
fn paced_tasks_are_spread_over_the_period() {
    let folder = Folder::new();
    folder.run("x\n".repeat(8), &["4/80ms", "--paced", "--log", "log.csv", "--", "true"]);
    assert_clean(&folder.log("log.csv"), &["4/80ms", "1/20ms"]);
}

#[test]
fn tag_puts_the_item_before_each_line() {
    let options = [FREE, "--tag", "-q", "--shell", "--", "printf 'x\\ny'; echo z >&2; : {}"];
    let ran = Folder::new().run("a\nb\n", &options);
    assert_eq!(ran.out, "a\tx\na\ty\nb\tx\nb\ty\n");
    assert_eq!(ran.err, "a\tz\nb\tz\n");
}

#[test]
fn dry_run_shows_the_commands_and_runs_none() {
    let folder = Folder::new();
    let options = ["1/1h", "--dry-run", "--log", "log.csv", "--", "touch", "{}", "no such"];
    let ran = folder.run("a b\nc\n", &options);
    assert_eq!(
        (ran.out.as_str(), ran.code),
        ("touch 'a b' 'no such'\ntouch c 'no such'\n", Some(0))
    );
    assert!(!folder.path("c").exists() && !folder.path("log.csv").exists());
    let ran = folder.run("a b\n", &["1/1h", "--dry-run", "--shell", "--", "echo {} | wc"]);
    assert_eq!(ran.out, "sh -c \"echo 'a b' | wc\"\n");
}

// --- Failures

#[test]
fn a_failed_task_is_counted_and_the_rest_is_run() {
    let folder = Folder::new();
    let options = [FREE, "--log", "log.csv", "--shell", "--", "exit {}"];
    let ran = folder.run("0\n7\n0\n", &options);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("3 tasks: 2 ok, 1 failed in"), "{}", ran.err);
    let codes: Vec<_> = folder.log("log.csv").iter().map(|row| row.exit_code).collect();
    assert_eq!(codes, [0, 7, 0]);
}

#[test]
fn halt_starts_nothing_after_a_failure() {
    let folder = Folder::new();
    let options = [FREE, "--halt", "--log", "log.csv", "--shell", "--", "exit {}"];
    let ran = folder.run("0\n1\n0\n0\n", &options);
    assert_eq!((ran.code, folder.log("log.csv").len()), (Some(1), 2));
}

#[test]
fn each_retry_is_a_task_under_the_limit() {
    let folder = Folder::new();
    let script = "echo {} >> tries; [ $(grep -c {} tries) -ge {} ]";
    let options = ["2/50ms", "--retries", "3", "--retry-delay", "1ms", "--log", "log.csv"];
    let ran = folder.run("1\n3\n9\n2\n", &[&options[..], &["--shell", "--", script]].concat());
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("4 tasks: 3 ok, 1 failed, 6 retries in"), "{}", ran.err);
    let rows = folder.log("log.csv");
    let seqs: Vec<_> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, [1, 2, 2, 2, 3, 3, 3, 3, 4, 4], "an item is tried again in its place");
    assert_clean(&rows, &["2/50ms"]);
}

#[test]
fn a_fast_clock_on_the_other_side_stretches_the_period() {
    let folder = Folder::new();
    let options = ["1/60ms", "--clock-drift", "1000000", "--log", "log.csv", "--", "true"];
    folder.run("1\n2\n3\n", &options);
    assert!(gaps(&folder.log("log.csv")).iter().all(|gap| *gap > Duration::from_millis(120)));
}

#[test]
fn retries_wait_twice_as_long_each_time() {
    let folder = Folder::new();
    let options = [FREE, "--retries", "2", "--retry-delay", "40ms", "--log", "log.csv"];
    folder.run("1\n", &[&options[..], &["--", "false"]].concat());
    let gaps = gaps(&folder.log("log.csv"));
    assert!(gaps[0] >= Duration::from_millis(40) && gaps[1] >= Duration::from_millis(80));
}

#[test]
fn a_command_that_cannot_be_started_is_named_by_its_line() {
    let folder = Folder::new();
    folder.write("script", "");
    let options = [FREE, "--log", "log.csv", "--", "{}"];
    let ran = folder.run("true\nno-such-command\n\n./script\ntrue\n", &options);
    assert_eq!(ran.code, Some(1));
    let missing = "line 2, `no-such-command`: cannot run `no-such-command`: No such file";
    assert!(ran.err.contains(missing), "{}", ran.err);
    assert!(
        ran.err.contains("line 4, `./script`: cannot run `./script`: Permission"),
        "{}",
        ran.err
    );
    let codes: Vec<_> = folder.log("log.csv").iter().map(|row| row.exit_code).collect();
    assert_eq!(codes, [0, 127, 126, 0]);
    let ran = folder.run(b"a\0b\nc\n", &[FREE, "--", "echo"]);
    assert!(ran.err.contains("line 1: it holds a NUL character"), "{}", ran.err);
    assert_eq!(ran.out, "c\n");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_runs() {
    let folder = Folder::new();
    folder
        .write("text", "no log\n")
        .write("bad.csv", "seq,start_ns,end_ns,weight,exit_code,input\n1,2\n");
    let cases: [(&[&str], i32, &str); 15] = [
        (&["10/1x", "--", "true"], 2, "`10/1x` is not a limit: `x` is not a unit of time"),
        (&["0/1s", "--", "true"], 2, "rate 0 would never let anything run"),
        (&["--", "true"], 2, "required"),
        (&["10/1s"], 2, "<COMMAND>"),
        (&["10/1s", "-j0", "--", "true"], 2, "invalid value '0'"),
        (&["10/1s", "-j99999999", "--", "true"], 2, "concurrency 99999999 is over the highest"),
        (
            &["10w/1s", "--paced", "--weight", "1", "--", "true"],
            2,
            "pacing spreads tasks over a task limit",
        ),
        (&["10/1s", "--weight", "2", "--", "true"], 2, "--weight needs a limit on weight"),
        (&["10/1s", "--header", "--", "true"], 2, "--header needs columns"),
        (&["10/1s", "-0", "--csv", "--", "true"], 2, "cannot be used with"),
        (&["10/1s", "--resume", "--", "true"], 2, "--log"),
        (&["10/1s", "-i", "nowhere", "--", "true"], 3, "cannot read nowhere: No such file"),
        (
            &["10/1s", "--log", "text", "--resume", "--", "true"],
            3,
            "line 1: this is not the header",
        ),
        (&["10/1s", "--log", "bad.csv", "--resume", "--", "true"], 3, "line 2: a row has six"),
        (&["10/1s", "--", "no-such-command"], 127, "there is no command `no-such-command`"),
    ];
    for (options, code, words) in cases {
        let ran = folder.run("a\n", options);
        assert_eq!(ran.code, Some(code), "{options:?}: {}", ran.err);
        assert!(ran.err.contains(words), "{options:?}: {}", ran.err);
        assert_eq!(ran.out, "");
    }
    assert_eq!(folder.read("text"), "no log\n", "what is no log is left alone");
    let ran = folder.run("", &[FREE, "-i", ".", "--", "true"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
}

// --- Help

#[test]
fn the_help_has_examples_and_the_exit_codes() {
    let ran = Folder::new().run("", &["--help"]);
    for words in ["Examples:", "--resume", "Exit codes:", "130  interrupted"] {
        assert!(ran.out.contains(words), "{words}");
    }
}
