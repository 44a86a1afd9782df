//! Output that is captured and waits for its turn: nothing touches it, it costs no descriptor, and memory
//! and disk are bounded. The real binary and real time; nothing depends on it.

use std::process::Stdio;

use crate::support::{FREE, Folder, end};

#[test]
fn what_was_left_in_the_background_writes_over_nothing_and_is_not_killed() {
    let folder = Folder::new();
    // The second leaves one behind that writes once the second has ended and the third runs, while
    // the second's output still waits for the first.
    let script = "case {} in 1) until [ -e late ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done;; \
        2) printf 'HEAD\\n'; seq 20000; \
           (until [ -e third ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done; echo LATE; seq 100000; : > late) & ;; \
        3) : > third;; esac";
    let ran = folder.run("1\n2\n3\n", &[FREE, "-q", "-j2", "--shell", "--", script]);
    let numbers: String = (1..=20_000).map(|number: i32| number.to_string() + "\n").collect();
    assert!(ran.out == format!("HEAD\n{numbers}"), "it begins {:?}", &ran.out[..30]);
}

#[test]
fn a_run_does_not_wait_for_what_was_left_in_the_background() {
    let folder = Folder::new();
    // Its own streams, which are the run's to read, are all that it holds.
    let script = "echo {}; (exec 3>&-; until [ -e ended ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done) &";
    let ran = folder.run("1\n2\n", &[FREE, "-q", "-j2", "--shell", "--", script]);
    folder.write("ended", "");
    assert_eq!((ran.out.as_str(), ran.code), ("1\n2\n", Some(0)));
}

#[test]
fn a_command_may_open_its_own_streams_by_name() {
    let folder = Folder::new();
    let script = "echo one; echo two > /dev/stdout; echo three | tee /dev/stderr; echo four; : {}";
    let ran = folder.run("x\n", &[FREE, "-q", "-j2", "--shell", "--", script]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("one\ntwo\nthree\nfour\n", "three\n"));
}

/// Runs commands that each write so much behind a first that waits for all of them and then says how
/// much memory the run has had at most, in kilobytes.
fn behind_a_slow_first(folder: &Folder, items: u32, bytes: u32) -> (u64, String) {
    let script = format!(
        "ulimit -n 64; seq {items} | \"$R\" run 1000000/1s -j2 -q --log log.csv -- sh -c '\
        if [ $1 = 1 ]; then until [ $(wc -l < log.csv) = {items} ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done; \
        grep VmHWM /proc/$PPID/status; \
        else printf \"%0{bytes}d\\n\" $1; fi' x"
    );
    let ran = folder.sh(&script);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let (memory, rest) = ran.out.split_once('\n').unwrap();
    (memory.split_whitespace().nth(1).unwrap().parse().unwrap(), rest.to_owned())
}

#[test]
fn any_number_of_outputs_may_wait_with_few_descriptors_and_little_memory() {
    // Of 60 MB each, large ones and such as are just small.
    for (items, bytes) in [(600, 100_000), (1_000, 60_000)] {
        let folder = Folder::new();
        let (kilobytes, rest) = behind_a_slow_first(&folder, items, bytes);
        assert!(kilobytes < 30_000, "{kilobytes} kB");
        let numbers = rest.lines().map(|line| {
            assert_eq!(line.len(), bytes as usize);
            line.trim_start_matches('0').parse::<u32>().unwrap()
        });
        assert!(numbers.eq(2..=items), "whole and in order");
    }
}

#[test]
fn a_folder_for_temporary_files_that_cannot_be_used_is_one_error_before_anything_runs() {
    let folder = Folder::new();
    folder.write("file", "").write("items", "x\ny\n");
    for (name, option) in [("nowhere", "-j2"), ("file", "-j2"), ("nowhere", "--tag")] {
        let options = [FREE, option, "-i", "items", "--log", "log.csv", "--", "touch", "began"];
        let mut command = folder.command(&options);
        let ran = end(command.env("TMPDIR", folder.path(name)).spawn().unwrap());
        assert_eq!(ran.code, Some(3), "{}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
        assert!(ran.err.contains(folder.path(name).to_str().unwrap()), "{}", ran.err);
        assert!(ran.err.contains("TMPDIR names another"), "{}", ran.err);
        assert!(!folder.path("began").exists() && !folder.path("log.csv").exists());
    }
    // Nothing is kept with -j1.
    let mut command = folder.command(&[FREE, "-i", "items", "--", "true"]);
    command.env("TMPDIR", "/nowhere").stdin(Stdio::null());
    assert_eq!(end(command.spawn().unwrap()).code, Some(0));
}

#[test]
fn a_full_disk_is_one_error_of_ours_and_what_runs_is_logged() {
    let folder = Folder::new();
    // No file may be longer than 50 kB, which is an error here and no signal.
    let script = "trap '' XFSZ; ulimit -f 100; seq 600 | \"$R\" run 1000000/1s -j2 --log log.csv -- sh -c '\
        echo $1 >> began; if [ $1 = 1 ]; then until [ -e go ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done; \
        else printf \"%0100000d\" $1; fi' x & \
        until [ $(wc -l < log.csv) -ge 43 ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done; \
        : > go; wait $!";
    let ran = folder.sh(script);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    let told = ran.err.lines().filter(|line| line.contains("cannot keep the commands' output"));
    assert_eq!(told.count(), 1, "{}", ran.err);
    let rows = folder.log("log.csv");
    assert_eq!(folder.read("began").lines().count(), rows.len());
    assert!(
        rows.len() < 600 && rows.iter().all(|row| row.exit_code == 0),
        "no command has seen it"
    );
}
