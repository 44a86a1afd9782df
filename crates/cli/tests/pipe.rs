//! `ratelimit pipe`, the real binary. Time is real: what is asserted of it is that nothing is too fast.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Child;
use std::time::{Duration, Instant};

use support::{Folder, Ran, end};

const FREE: &str = "1000000/1s";

fn start(folder: &Folder, arguments: &[&str]) -> Child {
    folder.subcommand("pipe", arguments).spawn().unwrap()
}

fn pipe(input: impl AsRef<[u8]>, arguments: &[&str]) -> Ran {
    pipe_in(&Folder::new(), input, arguments)
}

fn pipe_in(folder: &Folder, input: impl AsRef<[u8]>, arguments: &[&str]) -> Ran {
    let mut child = start(folder, arguments);
    // One that refuses its arguments does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
    end(child)
}

#[test]
fn lines_go_through_unchanged_no_faster_than_the_limit() {
    let input: String = (1..=23).map(|line| line.to_string() + "\n").collect();
    let begin = Instant::now();
    let ran = pipe(&input, &["5/50ms"]);
    let took = begin.elapsed();
    assert_eq!((ran.out, ran.code), (input, Some(0)));
    // The 23rd is in the fifth window.
    assert!(took > Duration::from_millis(4 * 50), "{took:?}");
    assert!(ran.err.starts_with("ratelimit: 23 lines, 60 B in 0."), "{}", ran.err);
}

#[test]
fn what_is_no_text_and_has_no_end_goes_through_as_well() {
    let folder = Folder::new();
    let input = b"\xff\xfe\n\n\r\n\0last";
    let mut child = start(&folder, &[FREE, "-q"]);
    child.stdin.take().unwrap().write_all(input).unwrap();
    let said = child.wait_with_output().unwrap();
    assert_eq!((&*said.stdout, &*said.stderr), (&input[..], &b""[..]));
}

#[test]
fn a_line_is_there_before_the_next_has_come() {
    let folder = Folder::new();
    let mut child = start(&folder, &[FREE]);
    let (mut into, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut reader = BufReader::new(&mut out);
    for line in ["one\n", "two\n", "three\n"] {
        into.write_all(line.as_bytes()).unwrap();
        let mut read = String::new();
        reader.read_line(&mut read).unwrap();
        assert_eq!(read, line);
    }
    drop(into);
    assert!(child.wait().unwrap().success());
}

#[test]
fn bytes_are_weight_and_a_long_line_goes_in_pieces() {
    let line = "x".repeat(95) + "\n";
    let input = line.repeat(2) + "short";
    let begin = Instant::now();
    let ran = pipe(&input, &["--bytes", "40w/30ms"]);
    assert_eq!(ran.out, input);
    // 40 + 40 + 16, 40 + 40 + 16 and 5 bytes: at most 40 in a window, so six of them at the least.
    assert!(begin.elapsed() > Duration::from_millis(4 * 30));
    assert!(ran.err.starts_with("ratelimit: 2 lines, 197 B in "), "{}", ran.err);
}

#[test]
fn whoever_reads_may_leave() {
    let folder = Folder::new();
    let mut child = start(&folder, &["100/50ms"]);
    let mut into = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || while into.write_all(b"line\n").is_ok() {});
    let mut some = [0; 5];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let ran = end(child);
    assert_eq!((&some, ran.code), (b"line\n", Some(141)));
    assert!(ran.err.starts_with("ratelimit: ") && ran.err.lines().count() == 1, "{}", ran.err);
    writer.join().unwrap();
}

#[test]
fn a_file_may_be_read_and_lines_may_end_with_nul() {
    let folder = Folder::new();
    folder.write("items", "one\ntwo\0three\0");
    let ran = pipe_in(&folder, "", &[FREE, "-0", "-i", "items"]);
    assert_eq!(ran.out, "one\ntwo\0three\0");
    assert!(ran.err.starts_with("ratelimit: 2 lines, 14 B in "), "{}", ran.err);
    let ran = pipe_in(&folder, "from stdin", &[FREE, "-i", "-"]);
    assert_eq!(ran.out, "from stdin");
}

#[test]
fn nonsense_is_refused_at_once() {
    let cases: [(&[&str], i32, &str); 6] = [
        (&[], 2, "<LIMIT>"),
        (&["0/1s"], 2, "rate 0 would never let anything run"),
        (&["10w/1s"], 2, "a limit on weight needs --bytes"),
        (&["--bytes", FREE], 2, "--bytes needs a limit on weight"),
        (&["--bytes", "--paced", "10w/1s"], 2, "task limit"),
        (&[FREE, "-i", "nowhere"], 3, "cannot read nowhere: "),
    ];
    for (arguments, code, words) in cases {
        let ran = pipe("", arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}");
        assert!(ran.err.contains(words), "{arguments:?}: {}", ran.err);
    }
}
