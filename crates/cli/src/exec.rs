//! One try of one command: start it, wait for it, kill it where it must be.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::stop::{Level, Stop};

/// How long a command has between being asked to end and being made to.
const KILL_AFTER: Duration = Duration::from_secs(1);

const TIMED_OUT: i32 = 124;
const CANNOT_RUN: i32 = 126;
const NOT_FOUND: i32 = 127;

/// What came of a try.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    pub(crate) code: i32,
    /// Whether it was killed, so that its call may be half done.
    pub(crate) killed: bool,
    /// What to tell about it beyond its code.
    pub(crate) message: Option<String>,
    pub(crate) output: Option<Captured>,
}

/// What a command wrote.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) stdout: File,
    pub(crate) stderr: File,
}

/// Runs a command to its end. It starts after this is called and has ended before this returns.
pub(crate) async fn run(
    command: &[OsString],
    capture: bool,
    timeout: Option<Duration>,
    stop: &Stop,
) -> Outcome {
    let start = Instant::now();
    let mut outcome =
        Outcome { start, end: start, code: 0, killed: false, message: None, output: None };
    match spawn(command, capture) {
        Ok((child, output)) => {
            outcome.output = output;
            match wait(child, timeout, stop).await {
                Ok((status, reason)) => {
                    outcome.killed = reason.is_some();
                    (outcome.code, outcome.message) = describe(status, reason, timeout);
                }
                Err(error) => {
                    outcome.code = CANNOT_RUN;
                    outcome.message = Some(format!("cannot wait for it: {error}"));
                }
            }
        }
        Err(error) => {
            let not_found = error.kind() == io::ErrorKind::NotFound;
            outcome.code = if not_found { NOT_FOUND } else { CANNOT_RUN };
            let program =
                command.first().map_or_else(Default::default, |word| word.to_string_lossy());
            outcome.message = Some(format!("cannot run `{program}`: {error}"));
        }
    }
    outcome.end = Instant::now();
    outcome
}

/// Why a command is killed.
#[derive(Debug, Clone, Copy)]
enum Killed {
    TooLong,
    Interrupted,
}

fn spawn(words: &[OsString], capture: bool) -> io::Result<(Child, Option<Captured>)> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    // A group of its own: an interrupt from the terminal is for us, a kill is for all of it.
    command.args(arguments).stdin(Stdio::null()).process_group(0);
    let output = if capture {
        let output = Captured { stdout: tempfile::tempfile()?, stderr: tempfile::tempfile()? };
        command.stdout(output.stdout.try_clone()?).stderr(output.stderr.try_clone()?);
        Some(output)
    } else {
        None
    };
    Ok((command.spawn()?, output))
}

async fn wait(
    mut child: Child,
    timeout: Option<Duration>,
    stop: &Stop,
) -> io::Result<(ExitStatus, Option<Killed>)> {
    let too_long = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let reason = tokio::select! {
        biased;
        status = child.wait() => return Ok((status?, None)),
        () = stop.reached(Level::Kill) => Killed::Interrupted,
        () = too_long => Killed::TooLong,
    };
    // Until it is waited for, its id is its own: the signal cannot reach anyone else.
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let kill = |signal| group.map(|group| kill_process_group(group, signal));
    kill(Signal::TERM);
    let status = match tokio::time::timeout(KILL_AFTER, child.wait()).await {
        Ok(status) => status?,
        Err(_) => {
            kill(Signal::KILL);
            child.wait().await?
        }
    };
    Ok((status, Some(reason)))
}

fn describe(
    status: ExitStatus,
    killed: Option<Killed>,
    timeout: Option<Duration>,
) -> (i32, Option<String>) {
    let by_signal = status.signal();
    let code = status.code().unwrap_or_else(|| 128 + by_signal.unwrap_or(0));
    match (killed, by_signal) {
        (Some(Killed::TooLong), _) => {
            let timeout = humantime::format_duration(timeout.unwrap_or_default());
            (TIMED_OUT, Some(format!("killed: it took longer than {timeout}")))
        }
        (Some(Killed::Interrupted), _) => (code, Some("killed: interrupted".to_owned())),
        (None, Some(signal)) => (code, Some(format!("ended by signal {signal}"))),
        (None, None) => (code, None),
    }
}
