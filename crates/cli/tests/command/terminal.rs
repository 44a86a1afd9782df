//! What a run does on a terminal: commands that read it, Ctrl-C and Ctrl-Z, the line at the bottom. The real
//! binary on a real pseudo-terminal, which `script` (util-linux) provides, and real time; deadlines only
//! detect that something never comes.

use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::support::Folder;

const NEVER: Duration = Duration::from_secs(60);

/// A shell script on a terminal of its own.
struct Session {
    child: std::process::Child,
    keys: std::process::ChildStdin,
    output: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl Session {
    fn start(folder: &Folder, columns: usize, script: &str) -> Self {
        let script = format!("stty cols {columns} rows 24; {script}");
        let mut command = folder.script("exec script -qefc \"$SCRIPT\" /dev/null");
        command.env("SCRIPT", script).env("SHELL", "/bin/sh").env("TERM", "xterm");
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let keys = child.stdin.take().unwrap();
        Self { child, keys, output, shown: vec![] }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Waits until so many of a text have been shown.
    fn wait_for(&mut self, text: &str, times: usize) -> &mut Self {
        while self.text().matches(text).count() < times {
            match self.output.recv_timeout(NEVER) {
                Ok(bytes) => self.shown.extend(bytes),
                Err(error) => panic!("`{text}`, {times} times: {error}: {:?}", self.text()),
            }
        }
        self
    }

    fn press(&mut self, keys: &str) -> &mut Self {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self
    }

    /// All that was shown, and the exit code.
    fn end(mut self) -> (String, Option<i32>) {
        loop {
            match self.output.recv_timeout(NEVER) {
                Ok(bytes) => self.shown.extend(bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.child.kill();
                    panic!("it never ends: {:?}", self.text());
                }
            }
        }
        (self.text(), self.child.wait().unwrap().code())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Where a test has failed: with its terminal gone, so is what runs there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ASKS: &str =
    "'printf \"name of $1? \" >/dev/tty; read name </dev/tty; echo \"$1 is $name\"' x";

#[test]
fn one_command_at_a_time_may_read_the_terminal() {
    for options in ["-j1", "-j1 --tag", "-j1 -q"] {
        let folder = Folder::new();
        folder.write("items", "a\nb\n");
        let script = format!("exec \"$R\" run 9/1s {options} -i items -- sh -c {ASKS}");
        let mut session = Session::start(&folder, 80, &script);
        session.wait_for("name of a? ", 1).press("one\n").wait_for("name of b? ", 1).press("two\n");
        let (shown, code) = session.end();
        assert_eq!(code, Some(0), "{options}: {shown}");
        assert!(shown.contains("a is one\r\n") && shown.contains("b is two\r\n"), "{shown}");
        let last = screens(&shown, 80).pop().unwrap();
        let asked = last.iter().filter(|row| *row == "name of a? one" || *row == "name of b? two");
        assert_eq!(asked.count(), 2, "what it asks stays there: {last:?}");
    }
}

#[test]
fn to_ask_is_an_error_at_once_where_several_run_or_the_items_are_typed() {
    let folder = Folder::new();
    folder.write("items", "a\n");
    let script = format!("exec \"$R\" run 9/1s -j2 -q -i items --log log.csv -- sh -c {ASKS}");
    let (shown, code) = Session::start(&folder, 80, &script).end();
    assert_eq!(code, Some(0), "the shell goes on after it: {shown}");
    assert!(shown.contains("/dev/tty: No such device"), "{shown}");

    let script = format!("exec \"$R\" run 9/1s -q -- sh -c {ASKS}");
    let mut session = Session::start(&folder, 80, &script);
    session.press("typed\n").wait_for("typed is", 1).press("\x04");
    let (shown, code) = session.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("/dev/tty: No such device"), "{shown}");
}

#[test]
fn ctrl_c_is_for_the_command_that_reads_the_terminal_and_interrupts_the_run_as_well() {
    let folder = Folder::new();
    folder.write("items", "a\nb\n");
    // It says that it has the terminal: what reads in the background is stopped until it has.
    let script = "exec \"$R\" run 9/1s -i items --log log.csv -- \
        sh -c 'read name </dev/tty; echo begun; read name </dev/tty' x";
    let mut session = Session::start(&folder, 80, script);
    session.press("x\n").wait_for("begun", 1).press("\x03");
    let (shown, code) = session.end();
    assert_eq!(code, Some(130), "{shown}");
    assert!(shown.contains("1 never started"), "{shown}");
    assert_eq!(folder.log("log.csv")[0].exit_code, 130);
}

#[test]
fn ctrl_c_is_ours_while_nobody_reads_the_terminal() {
    let folder = Folder::new();
    folder.write("items", "a\nb\n");
    let script = "exec \"$R\" run 9/1s -i items --log log.csv -- \
        sh -c 'echo begun; until [ -e go ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done' x";
    let mut session = Session::start(&folder, 80, script);
    // Also: what a command writes is shown before it ends.
    session.wait_for("begun", 1).press("\x03").wait_for("interrupt again", 1);
    folder.write("go", "");
    let (shown, code) = session.end();
    assert_eq!(code, Some(130), "{shown}");
    assert_eq!(folder.log("log.csv")[0].exit_code, 0, "it ended by itself");
}

#[test]
fn ctrl_z_stops_the_run_with_the_command_that_reads_the_terminal() {
    let folder = Folder::new();
    folder.write("items", "a\n");
    let script = "exec bash -c 'set -m; \"$R\" run 9/1s -i items -- \
        sh -c \"read x </dev/tty; echo begun; read name </dev/tty; echo is \\$name\" x; \
        echo shell: $?; fg; echo shell: $?'";
    let mut session = Session::start(&folder, 80, script);
    session.press("x\n").wait_for("begun", 1).press("\x1a");
    // 128 and the number of SIGTSTP: the shell has the terminal again, and hands it back.
    session.wait_for("shell: 148", 1).press("late\n");
    let (shown, _) = session.end();
    assert!(shown.contains("is late\r\n") && shown.contains("shell: 0"), "{shown}");
}

#[test]
fn the_terminal_is_as_it_was_when_a_command_that_changed_it_has_died() {
    let folder = Folder::new();
    folder.write("items", "a\n");
    let script = "\"$R\" run 9/1s -q -i items -- sh -c 'stty -echo </dev/tty; kill -9 $$' x; \
        stty -a | grep -o ' .echo '";
    let (shown, _) = Session::start(&folder, 80, script).end();
    assert!(shown.ends_with(" echo \r\n") || !shown.contains("-echo"), "{shown}");
    assert!(shown.contains("signal 9"), "{shown}");
}

/// What a terminal shows after each time that the line was drawn, and in the end.
fn screens(shown: &str, columns: u16) -> Vec<Vec<String>> {
    let mut terminal = vt100::Parser::new(100, columns, 0);
    let mut screens = vec![];
    for part in shown.split_inclusive("\x1b[K") {
        terminal.process(part.as_bytes());
        screens.push(terminal.screen().rows(0, columns).map(|row| row.trim_end().into()).collect());
    }
    screens
}

#[test]
fn the_line_never_mixes_with_output_and_fits_the_terminal() {
    for (options, columns) in [("-j1", 45), ("-j2", 45), ("-j2", 20), ("-j1 --tag", 100)] {
        let folder = Folder::new();
        folder.write("items", "1\n2\n3\n4\n");
        // Twice the window waits; the outputs do not end their lines.
        let script = format!(
            "exec \"$R\" run 2/4s {options} -i items -- sh -c 'sleep 0.3; printf \"part $1\"; kill -9 $$' x"
        );
        let (shown, code) = Session::start(&folder, columns, &script).end();
        assert_eq!(code, Some(1), "{shown}");
        let screens = screens(&shown, columns as u16);
        let drawn = |row: &&String| row.contains("/4 done");
        assert!(screens.iter().flatten().filter(drawn).count() > 0, "{options}: {shown:?}");
        for screen in &screens {
            let line: Vec<_> = screen.iter().filter(drawn).collect();
            assert!(line.len() <= 1, "it does not wrap: {screen:?}");
            assert!(line.iter().all(|line| !line.contains("part")), "{screen:?}");
        }
        let last = screens.last().unwrap();
        assert_eq!(last.iter().filter(drawn).count(), 0, "{last:?}");
        let text = last.join("");
        for item in 1..=4 {
            assert!(text.contains(&format!("part {item}")), "{last:?}");
        }
        if columns >= 45 {
            let told = last.iter().filter(|row| row.starts_with("ratelimit: line "));
            assert_eq!(told.count(), 4, "{last:?}");
        }
    }
}

#[test]
fn the_time_left_is_the_limits_from_the_first_and_the_line_moves_while_nothing_ends() {
    let folder = Folder::new();
    let items: String = (1..=30).map(|item: i32| item.to_string() + "\n").collect();
    folder.write("items", items);
    for (options, script) in [("-j1", "true"), ("-j2", "true"), ("--tag", "true")] {
        let script = format!("exec \"$R\" run 10/1h {options} -i items -- {script}");
        let mut session = Session::start(&folder, 45, &script);
        session.wait_for("10/30 done, 2h 0m left", 4).press("\x03");
        let (shown, code) = session.end();
        assert_eq!(code, Some(130), "{shown}");
        let (begin, _) = shown.split_once("10/30 done").unwrap();
        assert!(!begin.contains(" left") || begin.contains("/30 done, 2h 0m left"), "{shown:?}");
        assert!(shown.contains("10 ok, 0 failed, 20 never started"), "{shown}");
    }
}

#[test]
fn a_terminal_that_is_closed_ends_the_run_gently() {
    let folder = Folder::new();
    folder.write("items", "1\n2\n");
    let script = "exec \"$R\" run 9/1s -i items --log log.csv -- \
        sh -c 'echo begun; until [ -e go ] || [ $((n=n+1)) -gt 6000 ]; do sleep 0.01; done' x";
    let mut session = Session::start(&folder, 80, script);
    session.wait_for("begun", 1);
    session.child.kill().unwrap();
    session.child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    folder.write("go", "");
    folder.wait_until(|folder| folder.read("log.csv").lines().count() == 2);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        folder.log("log.csv")[0].exit_code,
        0,
        "what ran has its row, and nothing more runs"
    );
}

#[test]
fn a_long_wait_is_told_of_where_there_is_no_terminal() {
    use std::io::{BufRead, BufReader};
    let folder = Folder::new();
    folder.write("items", "1\n2\n3\n4\n");
    let mut child = folder.script("exec \"$R\" run 2/1h -i items -- true").spawn().unwrap();
    let mut told = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut told).unwrap();
    let words = "ratelimit: 2/4 done; waiting for the limit, which opens in 1h 0m, 1h 0m left\n";
    assert_eq!(told, words);
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(crate::support::end(child).code, Some(130));
}
