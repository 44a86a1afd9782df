//! Standard streams that are full, closed, or whose reader has gone: an exit code, never a panic, never
//! a lost row. The real binary; time is real, and nothing depends on it.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};

use crate::support::{FREE, Folder, Ran, end};

fn full() -> Stdio {
    Stdio::from(File::options().write(true).open("/dev/full").unwrap())
}

/// A pipe whose reader has gone.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Stdio::from(writer)
}

/// What has one row for each of ten tasks, for `audit` to read.
fn with_log(folder: &Folder) {
    folder.run("x\n".repeat(10), &[FREE, "-q", "--log", "audited.csv", "--", "true"]);
}

/// What writes to standard output, one of each kind.
const PRINTING: [&[&str]; 6] = [
    &["audit", "audited.csv", "1/1s"],
    &["run", "1/1s", "-i", "audited.csv", "--dry-run", "--", "echo"],
    &["pipe", FREE, "-q", "-i", "audited.csv"],
    &["completions", "bash"],
    &["--help"],
    &["run", "--help"],
];

fn print_to(folder: &Folder, arguments: &[&str], out: Stdio) -> Ran {
    let mut command = folder.subcommand(arguments[0], &arguments[1..]);
    end(command.stdin(Stdio::null()).stdout(out).spawn().unwrap())
}

#[test]
fn what_is_printed_for_a_reader_who_has_gone_ends_quietly() {
    let folder = Folder::new();
    with_log(&folder);
    for arguments in PRINTING {
        let ran = print_to(&folder, arguments, unread());
        assert_eq!((ran.code, ran.err.as_str()), (Some(141), ""), "{arguments:?}");
    }
}

#[test]
fn what_is_printed_to_a_full_disk_is_an_error_that_says_so() {
    let folder = Folder::new();
    with_log(&folder);
    for arguments in PRINTING {
        let ran = print_to(&folder, arguments, full());
        let words = "ratelimit: cannot write the output: No space left on device (os error 28)\n";
        assert_eq!((ran.code, ran.err.as_str()), (Some(3), words), "{arguments:?}");
    }
}

#[test]
fn messages_that_cannot_be_written_end_the_run_when_what_runs_has_ended_and_is_logged() {
    for (stderr, code) in [(full as fn() -> Stdio, 3), (unread, 141)] {
        let folder = Folder::new();
        // The first dies, of which there is something to tell. The others go on until it is written
        // that they may end; the last is not started.
        let script = "echo {} >> began; case {} in 1) until [ $(grep -c . began) = 3 ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done; kill -9 $$;; \
            *) until [ -e go ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done;; esac";
        let options = [FREE, "-j3", "--log", "log.csv", "--shell", "--", script];
        let mut child = folder.command(&options).stderr(stderr()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"1\n2\n3\n4\n5\n").unwrap();
        folder.wait_until(|folder| folder.read("log.csv").lines().count() == 2);
        folder.write("go", "");
        assert_eq!(end(child).code, Some(code));
        let rows = folder.log("log.csv");
        assert!((3..=4).contains(&rows.len()), "what ran has its row: {rows:?}");
        assert_eq!(folder.read("began").lines().count(), rows.len());
        assert!(rows.iter().all(|row| row.input != "5"), "nothing more is started");
    }
}

#[test]
fn a_summary_that_cannot_be_written_is_an_exit_code() {
    let folder = Folder::new();
    with_log(&folder);
    let cases: [&[&str]; 2] =
        [&["run", FREE, "-i", "audited.csv", "--", "true"], &["pipe", FREE, "-i", "audited.csv"]];
    for arguments in cases {
        let mut command = folder.subcommand(arguments[0], &arguments[1..]);
        assert_eq!(end(command.stderr(full()).spawn().unwrap()).code, Some(3), "{arguments:?}");
        assert_eq!(end(command.stderr(unread()).spawn().unwrap()).code, Some(141));
    }
    // What went wrong before has its own code still.
    let mut command = folder.command(&["0/1s", "--", "true"]);
    assert_eq!(end(command.stderr(full()).spawn().unwrap()).code, Some(2));
}

#[test]
fn streams_that_are_closed_at_the_start_are_as_if_they_were_dev_null() {
    let folder = Folder::new();
    folder.write("items", "1\n2\n");
    let run = |options: &str| {
        let binary = env!("CARGO_BIN_EXE_ratelimit");
        let script = format!("exec {binary} run {FREE} {options} <&- >&- 2>&-");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]).current_dir(folder.path(""));
        command.status().unwrap().code()
    };
    assert_eq!(run("-i items --log log.csv -- sh -c 'echo out; echo err >&2' x"), Some(0));
    assert_eq!(run("-i items --log log2.csv -j2 -- sh -c 'echo out; echo err >&2' x"), Some(0));
    assert_eq!((folder.log("log.csv").len(), folder.log("log2.csv").len()), (2, 2));
    let log = folder.read("log.csv") + &folder.read("log2.csv");
    assert!(!log.contains("out\n") && !log.contains("err\n"), "no file of ours takes their place");
    assert_eq!(run("--log log3.csv -- true"), Some(0), "no input");
}

#[test]
fn a_message_is_one_write() {
    // A seqpacket socket keeps writes apart: each read is one of them.
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let folder = Folder::new();
    let mut command = folder.command(&[FREE, "--", "sh", "-c", "kill -9 $$", "x"]);
    command.stderr(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
    let mut child: Child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a\nb\n").unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    ours.set_nonblocking(true).unwrap();
    let mut messages = vec![];
    let mut buffer = [0; 4096];
    while let Ok(length) = ours.recv(&mut buffer) {
        messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(messages.iter().all(|text| text.starts_with("ratelimit: ") && text.ends_with('\n')));
}
