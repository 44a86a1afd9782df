//! One try of one command: start it, read its output, wait for it, kill it on a timeout or a second signal.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use crate::capture::{BackgroundPipes, Capture};
use crate::display::shown;
use crate::error::exit;
use crate::foreground::{ForegroundGuard, Terminal, stopped_by};
use crate::ordered_output::TaskOutput;
use crate::process_group;
use crate::shutdown::{Level, Shutdown};
use crate::spawn::{SpawnError, Spawner};
use crate::spool::Spool;
use crate::status_line::StatusLine;
use crate::which;

const TIMED_OUT: i32 = 124;
const CANNOT_RUN: i32 = 126;
const NOT_FOUND: i32 = 127;

/// How often we check whether we are in the foreground, while a command waits for the terminal.
const FOREGROUND_EVERY: Duration = Duration::from_millis(100);

/// The outcome of one try.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    pub(crate) code: i32,
    /// Whether it died by a signal, or its status is unknown. Its call may still be on its way.
    pub(crate) abandoned: bool,
    /// A message about it, beyond its exit code.
    pub(crate) message: Option<String>,
    /// The exit code for the run, if Ctrl-C on the terminal interrupted the command instead of us.
    pub(crate) interrupted: Option<u8>,
}

/// The settings shared by every command of a run.
pub(crate) struct Executor {
    pub(crate) spawner: Spawner,
    /// Holds captured output.
    pub(crate) spool: Option<std::cell::RefCell<Spool>>,
    pub(crate) background_pipes: BackgroundPipes,
    /// The terminal, if a command may get the foreground.
    pub(crate) terminal: Option<Terminal>,
    pub(crate) status_line: std::rc::Rc<StatusLine>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) shutdown: Shutdown,
}

/// Why a command is killed.
#[derive(Debug, Clone, Copy)]
enum Killed {
    TooLong,
    Interrupted,
}

/// How a command ended.
struct Ended {
    status: io::Result<ExitStatus>,
    killed: Option<Killed>,
    held_terminal: bool,
}

impl Executor {
    /// Runs a command to its end. It starts after this is called and has ended before this returns. Captured
    /// output is added to `output`. An error means that the system lacks descriptors, processes or memory to
    /// start it now.
    pub(crate) async fn run(
        &self,
        command: &[OsString],
        output: &mut TaskOutput,
    ) -> Result<Outcome, io::Error> {
        // Hide the status line while the command can write to the terminal: by our streams, or by /dev/tty.
        let may_write = self.terminal.is_some() || !self.spawner.captures();
        let hidden = may_write.then(|| self.status_line.hide());
        let start = Instant::now();
        let (code, message, abandoned, interrupted) = match self.spawner.spawn(command) {
            Ok(child) => {
                let ended = self.wait(child, output).await;
                drop(hidden);
                self.describe(&ended)
            }
            Err(SpawnError::Busy(error)) => {
                self.background_pipes.close_all();
                return Err(error);
            }
            Err(SpawnError::Refused(error)) => {
                let (code, message) = describe_refused(command, &error);
                (code, Some(message), false, None)
            }
        };
        Ok(Outcome { start, end: Instant::now(), code, abandoned, message, interrupted })
    }

    async fn wait(&self, mut child: Child, output: &mut TaskOutput) -> Ended {
        let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let leader = leader.expect("nobody has waited for it yet");
        let capture = self.spool.as_ref().and_then(|spool| Capture::new(&mut child, spool));
        let mut capture = capture.map(|capture| (capture, output));
        let keep = async {
            match &mut capture {
                Some((capture, output)) => capture.keep(output).await,
                None => std::future::pending().await,
            }
        };
        let mut held_terminal = false;
        let ended = async {
            let too_long = async {
                match self.timeout {
                    Some(timeout) => tokio::time::sleep(timeout).await,
                    None => std::future::pending().await,
                }
            };
            let killed = tokio::select! {
                biased;
                status = child.wait() => return (status, None),
                () = self.shutdown.reached(Level::Kill) => Killed::Interrupted,
                () = too_long => Killed::TooLong,
                () = self.lend_terminal(leader, &mut held_terminal) => unreachable!(),
            };
            process_group::end(leader).await;
            (child.wait().await, Some(killed))
        };
        let (status, killed) = {
            tokio::pin!(keep, ended);
            tokio::select! {
                biased;
                ended = &mut ended => ended,
                () = &mut keep => ended.await,
            }
        };
        if let Some((capture, output)) = capture {
            capture.end(output, &self.background_pipes);
        }
        Ended { status, killed, held_terminal }
    }

    /// Watches the command: when the kernel stops it for using the terminal, gives it the foreground. Runs until
    /// it is dropped, and never returns.
    async fn lend_terminal(&self, group: Pid, has_held: &mut bool) {
        let (Some(terminal), Ok(mut children)) = (&self.terminal, signal(SignalKind::child()))
        else {
            return std::future::pending().await;
        };
        let go_on = || {
            let _ = kill_process_group(group, Signal::CONT);
        };
        let mut held: Option<ForegroundGuard<'_>> = None;
        loop {
            match stopped_by(group) {
                Some(Signal::TTIN | Signal::TTOU) => {
                    *has_held = true;
                    held = Some(self.foreground(terminal, group).await);
                    go_on();
                }
                // Ctrl-Z: we stop as well, and continue the command when we continue. A command that another
                // process stopped is for that process to continue.
                Some(Signal::TSTP) if held.is_some() => {
                    drop(held.take());
                    terminal.suspend();
                    held = terminal.give(group);
                    go_on();
                }
                _ => drop(children.recv().await),
            }
        }
    }

    /// Gives the terminal to a command. Waits while we are in the background ourselves.
    async fn foreground<'a>(&self, terminal: &'a Terminal, group: Pid) -> ForegroundGuard<'a> {
        let mut told = false;
        loop {
            if let Some(held) = terminal.give(group) {
                return held;
            }
            if !told {
                let what = "a command asks for the terminal; bring the run to its foreground (fg)";
                self.status_line.tell(what);
                told = true;
            }
            tokio::time::sleep(FOREGROUND_EVERY).await;
        }
    }

    fn describe(&self, ended: &Ended) -> (i32, Option<String>, bool, Option<u8>) {
        let status = match &ended.status {
            Ok(status) => status,
            Err(error) => {
                return (CANNOT_RUN, Some(format!("cannot wait for it: {error}")), true, None);
            }
        };
        let by_signal = status.signal();
        let code = status.code().unwrap_or_else(|| 128 + by_signal.unwrap_or(0));
        let interrupted = match by_signal.and_then(Signal::from_named_raw) {
            Some(Signal::INT) if ended.held_terminal => Some(exit::INTERRUPTED),
            Some(Signal::QUIT) if ended.held_terminal => Some(exit::QUIT),
            _ => None,
        };
        let (code, message) = match (ended.killed, by_signal) {
            (Some(Killed::TooLong), _) => {
                let timeout = humantime::format_duration(self.timeout.unwrap_or_default());
                (TIMED_OUT, Some(format!("killed: it took longer than {timeout}")))
            }
            (Some(Killed::Interrupted), _) => (code, Some("killed: interrupted".to_owned())),
            (None, Some(signal)) => (code, Some(format!("ended by signal {signal}"))),
            (None, None) => (code, None),
        };
        // A shell exits with 128 + N if its command died by signal N.
        let abandoned =
            ended.killed.is_some() || by_signal.is_some() || (129..=192).contains(&code);
        (code, message, abandoned, interrupted)
    }
}

fn describe_refused(command: &[OsString], error: &io::Error) -> (i32, String) {
    let program = command.first().map(OsString::as_os_str).unwrap_or_default();
    let name = shown(program.as_encoded_bytes());
    match error.kind() {
        io::ErrorKind::NotFound if which::find(program).is_ok() => {
            let what =
                format!("cannot run `{name}`: it is there, but not the interpreter that it names");
            (NOT_FOUND, what)
        }
        kind => {
            let code = if kind == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
            (code, format!("cannot run `{name}`: {error}"))
        }
    }
}
