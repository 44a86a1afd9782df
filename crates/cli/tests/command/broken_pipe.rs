//! Nothing is started for a reader who has gone. The real binary and real time; nothing depends on it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use crate::support::{FREE, Folder, end};

#[test]
fn output_that_nobody_reads_ends_the_run() {
    let folder = Folder::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let input: String = "x\n".repeat(10_000);
    folder.write("items", input);
    let options = [FREE, "--tag", "-i", "items", "--log", "log.csv", "--", "echo"];
    let child = folder.command(&options).stdout(Stdio::from(writer)).spawn().unwrap();
    let ran = end(child);
    assert_eq!(ran.code, Some(141), "{}", ran.err);
    assert!(folder.log("log.csv").is_empty());
    assert!(!ran.err.contains("Broken pipe"), "{}", ran.err);
}

/// The first writes a line. The others wait until its reader has gone.
const SCRIPT: &str = "echo {} >> began; echo {}; [ {} = 1 ] || until [ -e gone ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done";

fn after_the_reader_has_gone(options: &[&str], out: impl Into<Stdio>, read: impl FnOnce()) {
    let folder = Folder::new();
    folder.write("items", (1..=200).map(|item: i32| item.to_string() + "\n").collect::<String>());
    let all =
        [&[FREE, "-i", "items", "--log", "log.csv", "--shell"], options, &["--", SCRIPT]].concat();
    let child = folder.command(&all).stdout(out).spawn().unwrap();
    read();
    folder.write("gone", "");
    let ran = end(child);
    assert_eq!(ran.code, Some(141), "{options:?}: {}", ran.err);
    let began = folder.read("began").lines().count();
    // What ran when the first had ended, and one in its place.
    let at_once: usize = options[0].trim_start_matches("-j").parse().unwrap();
    assert!(began <= at_once + 1, "{options:?}: {began} began");
    assert_eq!(folder.log("log.csv").len(), began, "what ran has its row");
    assert!(ran.err.contains(" never started in "), "{}", ran.err);
    assert!(!ran.err.contains("signal 13"), "{}", ran.err);
}

const EVERY_WAY: [&[&str]; 4] = [&["-j1"], &["-j1", "--tag"], &["-j4"], &["-j4", "--tag"]];

#[test]
fn nothing_is_started_once_a_pipe_has_lost_its_reader() {
    for options in EVERY_WAY {
        let (reader, writer) = std::io::pipe().unwrap();
        after_the_reader_has_gone(options, writer, || {
            let mut line = String::new();
            BufReader::new(reader).read_line(&mut line).unwrap();
            assert!(line.trim_end().ends_with('1'), "{line}");
        });
    }
}

#[test]
fn nothing_is_started_once_a_socket_has_lost_its_peer() {
    for options in EVERY_WAY {
        let (ours, theirs) = UnixStream::pair().unwrap();
        after_the_reader_has_gone(options, OwnedFd::from(theirs), || {
            let mut line = String::new();
            BufReader::new(ours).read_line(&mut line).unwrap();
        });
    }
}

#[test]
fn a_peer_that_has_only_ended_its_own_sending_still_reads() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    let mut command = folder.command(&[FREE, "--", "echo"]);
    let mut child = command.stdout(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"1\n2\n").unwrap();
    drop(command);
    assert_eq!(end(child).code, Some(0));
    let lines: Vec<_> = BufReader::new(ours).lines().map(Result::unwrap).collect();
    assert_eq!(lines, ["1", "2"]);
}

#[test]
fn a_run_that_waits_for_its_window_or_for_items_ends_when_the_reader_goes() {
    for (limit, items) in [("1/1h", "1\n2\n"), (FREE, "1\n")] {
        for at_once in ["-j1", "-j2"] {
            let folder = Folder::new();
            let options = [limit, "-q", "--log", "log.csv", at_once, "--", "true"];
            let (reader, writer) = std::io::pipe().unwrap();
            let mut command = folder.command(&options);
            let mut child = command.stdout(writer).spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(items.as_bytes()).unwrap();
            folder.wait_until(|folder| folder.read("log.csv").lines().count() == 2);
            drop(reader);
            assert_eq!(end(child).code, Some(141));
            drop(input);
        }
    }
}
