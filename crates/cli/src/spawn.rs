//! Starting one process: its group, its streams, its limits, and what it means where it cannot be
//! started.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid};
use tokio::process::Child;

use crate::which;

/// Descriptors that a command costs while it runs: two pipes, and one to wait for it.
const EACH: u64 = 3;

/// And those that there are besides: files, pipes that were left open, what one start needs for itself.
const BESIDES: u64 = 256;

/// How every process of a run is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spawner {
    /// Whether what it writes is read by us. Else it has our own standard output and error.
    capture: bool,
    /// Whether it has a session of its own, where opening `/dev/tty` is an error at once. Else it has
    /// a group of its own in our session, and may be given the terminal.
    own_session: bool,
    /// The limit on descriptors that we were started with, where we have raised ours.
    descriptors: Option<Rlimit>,
}

/// Why a process could not be started.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// The system has no room for it now: descriptors, processes or memory.
    Busy(io::Error),
    /// This command cannot be run.
    Refused(io::Error),
}

impl Spawner {
    /// Raises our soft limit on descriptors to the hard one where so many commands at once may need
    /// more. The commands have the limit that we were started with.
    pub(crate) fn new(capture: bool, own_session: bool, at_once: usize) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let needed = (EACH * at_once as u64).saturating_add(BESIDES);
        let is_enough = limit.current.is_none_or(|soft| soft >= needed);
        let raised = Rlimit { current: limit.maximum, ..limit };
        let is_raised =
            !is_enough && raised != limit && setrlimit(Resource::Nofile, raised).is_ok();
        Self { capture, own_session, descriptors: is_raised.then_some(limit) }
    }

    pub(crate) fn captures(&self) -> bool {
        self.capture
    }

    /// Starts a process in a group of its own: a signal from the terminal is for us, a kill is for all
    /// of the group.
    pub(crate) fn spawn(&self, words: &[OsString]) -> Result<Child, SpawnError> {
        let refused = |errno: Errno| SpawnError::Refused(errno.into());
        let (program, arguments) = words.split_first().ok_or_else(|| refused(Errno::INVAL))?;
        let started = self.spawn_program(program, arguments);
        let started = match started {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOEXEC) => {
                self.spawn_script(program, arguments, error)
            }
            started => started,
        };
        started.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM) => {
                SpawnError::Busy(error)
            }
            _ => SpawnError::Refused(error),
        })
    }

    /// A script without `#!` is run by `sh`, as every shell does.
    fn spawn_script(
        &self,
        program: &OsStr,
        arguments: &[OsString],
        error: io::Error,
    ) -> io::Result<Child> {
        match which::find(program) {
            Ok(path) if which::is_script(&path) => {
                let arguments: Vec<_> =
                    [path.into_os_string()].into_iter().chain(arguments.iter().cloned()).collect();
                self.spawn_program(OsStr::new("/bin/sh"), &arguments)
            }
            _ => Err(error),
        }
    }

    fn spawn_program(&self, program: &OsStr, arguments: &[OsString]) -> io::Result<Child> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        if self.capture {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let Self { own_session, descriptors, .. } = *self;
        if !own_session {
            command.process_group(0);
        }
        if own_session || descriptors.is_some() {
            let prepare = move || {
                if own_session {
                    setsid()?;
                }
                if let Some(limit) = descriptors {
                    setrlimit(Resource::Nofile, limit)?;
                }
                Ok(())
            };
            // SAFETY: it runs in the child between fork and exec, where only what is safe in a signal
            // handler may be done: two system calls, which neither allocate nor lock. What it
            // captures are copies.
            unsafe { command.pre_exec(prepare) };
        }
        tokio::process::Command::from(command).spawn()
    }
}
