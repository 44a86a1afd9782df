//! Starts one process: its process group, its streams and its limits. Sorts failures into retry later and give up.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid};
use tokio::process::Child;

use crate::which;

/// The descriptors that a running command needs: two pipes, and one to wait for it.
const EACH: u64 = 3;

/// The descriptors that we need besides: files, pipes of background processes, and those of one start.
const BESIDES: u64 = 256;

/// Starts the processes of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spawner {
    /// Whether we read its output. If not, it inherits our standard output and error.
    capture: bool,
    /// Whether it gets a session of its own, in which opening `/dev/tty` fails at once. If not, it gets a process
    /// group in our session, and can get the terminal.
    own_session: bool,
    /// The limit on descriptors that we were started with, if we have raised ours.
    descriptors: Option<Rlimit>,
}

/// Why a process could not be started.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// The system lacks descriptors, processes or memory. A later try may succeed.
    Busy(io::Error),
    /// The command cannot be run at all.
    Refused(io::Error),
}

impl Spawner {
    /// Raises our soft limit on descriptors to the hard one if this many commands at once may need more. Commands
    /// get the limit that we were started with.
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

    /// Starts a process in a group of its own, so that signals from the terminal reach only us, and a kill reaches
    /// the whole group.
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

    /// Starts the program. Runs a script without `#!` with `sh`, as shells do.
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
            // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe calls are
            // allowed. It makes two system calls, which neither allocate nor lock, and captures only copies.
            unsafe { command.pre_exec(prepare) };
        }
        tokio::process::Command::from(command).spawn()
    }
}
