//! `ratelimit pipe`, the real binary. Time is real: what is asserted of it is that nothing is too fast.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;

use crate::support::{FREE, Folder, Ran, end};

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
    for line in ["one\n", "two\n", "three\n"] {
        into.write_all(line.as_bytes()).unwrap();
        wait_readable(&out);
        let mut read = vec![0; line.len()];
        out.read_exact(&mut read).unwrap();
        assert_eq!(read, line.as_bytes());
    }
    drop(into);
    assert_eq!(wait_for_end(&mut child), Some(0));
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
fn the_reader_may_leave() {
    let folder = Folder::new();
    let mut child = start(&folder, &["100/50ms"]);
    let mut into = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || while into.write_all(b"line\n").is_ok() {});
    let mut some = [0; 5];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert_eq!((&some, wait_for_end(&mut child)), (b"line\n", Some(141)));
    let ran = end(child);
    assert!(ran.err.starts_with("ratelimit: ") && ran.err.lines().count() == 1, "{}", ran.err);
    writer.join().unwrap();
}

/// Waits until there is something to read. This long means that nothing comes.
fn wait_readable(from: impl AsFd) {
    let mut fds = [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)];
    let hang = Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&hang)).unwrap(), 1, "nothing comes for a minute");
}

/// Waits for the end. This long means that there is none.
fn wait_for_end(child: &mut Child) -> Option<i32> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begin.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Lines of two bytes: nobody reads for a while, then all are read, one after the other. Between the
/// moment just before a line was read and the next one being there, more than the period must pass.
#[cfg(target_os = "linux")]
fn assert_lines_count_until_they_are_read(child: &mut Child, mut reader: impl Read + AsFd) {
    const PERIOD: Duration = Duration::from_millis(40);
    child.stdin.take().unwrap().write_all(b"a\nb\nc\nd\n").unwrap();
    let mut read_after: Option<Instant> = None;
    for line in ["a\n", "b\n", "c\n", "d\n"] {
        wait_readable(&reader);
        if let Some(read_after) = read_after.take() {
            assert!(read_after.elapsed() > PERIOD, "{line} is there too early");
        }
        // So long that the next lines would be there, had the window counted from the writing.
        std::thread::sleep(3 * PERIOD);
        assert_eq!(ioctl_fionread(&reader).unwrap(), 2, "only one is unread at a time");
        let before = Instant::now();
        let mut read = [0; 2];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(read, line.as_bytes());
        read_after = Some(before);
    }
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert_eq!(wait_for_end(child), Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn a_line_in_a_pipe_counts_until_it_has_been_read() {
    let mut child = start(&Folder::new(), &["1/40ms", "-q"]);
    let reader = child.stdout.take().unwrap();
    assert_lines_count_until_they_are_read(&mut child, reader);
}

#[test]
#[cfg(target_os = "linux")]
fn bytes_in_a_pipe_count_until_they_have_been_read() {
    let mut child = start(&Folder::new(), &["--bytes", "2w/40ms", "-q"]);
    let reader = child.stdout.take().unwrap();
    assert_lines_count_until_they_are_read(&mut child, reader);
}

#[test]
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn a_line_in_a_socket_counts_until_it_has_been_read() {
    let (reader, writer) = UnixStream::pair().unwrap();
    let folder = Folder::new();
    let mut command = folder.subcommand("pipe", &["1/40ms", "-q"]);
    let mut child = command.stdout(OwnedFd::from(writer)).spawn().unwrap();
    drop(command);
    assert_lines_count_until_they_are_read(&mut child, reader);
}

#[test]
#[cfg(target_os = "linux")]
fn a_reader_that_stalls_finds_one_line_and_not_all_that_the_limit_would_have_let_through() {
    for arguments in [&["10/1h", "-q"][..], &["--bytes", "100w/1h", "-q"]] {
        let mut child = start(&Folder::new(), arguments);
        child.stdin.take().unwrap().write_all(b"a\nb\nc\n").unwrap();
        let mut reader = child.stdout.take().unwrap();
        for line in [b"a\n", b"b\n", b"c\n"] {
            wait_readable(&reader);
            std::thread::sleep(Duration::from_millis(100));
            let mut read = [0; 64];
            let length = reader.read(&mut read).unwrap();
            assert_eq!(&read[..length], line, "{arguments:?}");
        }
        assert_eq!(wait_for_end(&mut child), Some(0));
    }
}

#[test]
fn a_reader_that_leaves_without_reading_is_not_waited_for() {
    // In the pipe is a line that is never going to be read; there is more to write, or to wait for.
    for (arguments, input) in [(["1/1h", "-q"], "a\nb\n"), (["1/1h", "-q"], "a\n")] {
        let mut child = start(&Folder::new(), &arguments);
        let mut into = child.stdin.take().unwrap();
        into.write_all(input.as_bytes()).unwrap();
        let reader = child.stdout.take().unwrap();
        wait_readable(&reader);
        drop(reader);
        assert_eq!(wait_for_end(&mut child), Some(141), "{input:?}");
    }
}

#[test]
fn a_reader_that_leaves_while_the_window_is_full_is_not_waited_for_either() {
    let mut child = start(&Folder::new(), &["1/1h", "-q"]);
    child.stdin.take().unwrap().write_all(b"a\nb\n").unwrap();
    let mut reader = child.stdout.take().unwrap();
    let mut read = [0; 2];
    reader.read_exact(&mut read).unwrap();
    drop(reader);
    assert_eq!(wait_for_end(&mut child), Some(141));
}

#[test]
fn an_end_is_not_held_up_by_lines_that_nobody_has_read_yet() {
    let mut child = start(&Folder::new(), &["5/1h", "-q"]);
    child.stdin.take().unwrap().write_all(b"one\n").unwrap();
    assert_eq!(wait_for_end(&mut child), Some(0));
    let mut read = String::new();
    child.stdout.take().unwrap().read_to_string(&mut read).unwrap();
    assert_eq!(read, "one\n");
}

#[test]
fn what_ends_with_no_line_is_there_before_the_next_has_come_too() {
    let mut child = start(&Folder::new(), &[FREE, "-0"]);
    let (mut into, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for item in [b"one\0", b"two\0"] {
        into.write_all(item).unwrap();
        wait_readable(&out);
        let mut read = [0; 4];
        out.read_exact(&mut read).unwrap();
        assert_eq!(&read, item);
    }
    drop(into);
    assert_eq!(wait_for_end(&mut child), Some(0));
}

#[test]
fn many_lines_and_bytes_go_through_unchanged_where_the_limit_does_not_bind() {
    let mut input = Vec::new();
    for line in 0_u32..60_000 {
        input.extend(line.to_le_bytes());
        input.extend(std::iter::repeat_n(b'x', line as usize % 17));
        input.push(b'\n');
    }
    input.extend(std::iter::repeat_n(b'y', 300_000));
    for arguments in [&["1000000000/1s", "-q"][..], &["--bytes", "1000000000w/1s", "-q"]] {
        let folder = Folder::new();
        folder.write("input", &input);
        let mut child = start(&folder, &[arguments, &["-i", "input"]].concat());
        let mut read = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut read).unwrap();
        assert!(read == input, "{arguments:?}");
        assert_eq!(wait_for_end(&mut child), Some(0));
        // And to a file, of which the kernel tells nothing.
        let mut command = folder.subcommand("pipe", &[arguments, &["-i", "input"]].concat());
        let output = std::fs::File::create(folder.path("output")).unwrap();
        let mut child = command.stdout(Stdio::from(output)).spawn().unwrap();
        assert_eq!(wait_for_end(&mut child), Some(0));
        assert!(std::fs::read(folder.path("output")).unwrap() == input, "{arguments:?}");
    }
}

#[test]
fn one_line_is_no_lines() {
    let ran = pipe("x\n", &[FREE]);
    assert!(ran.err.starts_with("ratelimit: 1 line, 2 B in "), "{}", ran.err);
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
