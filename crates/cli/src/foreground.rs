//! The terminal that the run was started from, and who may read it.
//!
//! A command runs in a process group of its own in the background of the terminal, so that Ctrl-C is
//! for us. The kernel stops it when it reads the terminal or changes its settings, as ssh and sudo do
//! when they ask for a password. Then, where one command runs at a time, its group becomes the
//! foreground and goes on; when it has ended we take the terminal back, with its settings as they
//! were. So Ctrl-C and Ctrl-Z are for the command only while it holds the terminal.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgrp, kill_process_group, waitid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp};

#[derive(Debug)]
pub(crate) struct Terminal {
    tty: File,
    ours: Pid,
}

/// That a command's group is in the foreground, until this is dropped.
#[derive(Debug)]
pub(crate) struct ForegroundGuard<'a> {
    terminal: &'a Terminal,
    group: Pid,
    settings: Option<Termios>,
}

impl Terminal {
    /// The terminal that controls this process, if one does.
    pub(crate) fn open() -> Option<Self> {
        let flags = OFlags::NOCTTY.bits().cast_signed();
        let tty =
            File::options().read(true).write(true).custom_flags(flags).open("/dev/tty").ok()?;
        // Who takes the terminal back does so from the background, for which the kernel would stop it.
        // (The standard library unblocks all signals in what it starts.)
        let mut signals = SigSet::empty();
        signals.add(NixSignal::SIGTTOU);
        signals.thread_block().ok()?;
        Some(Self { tty, ours: getpgrp() })
    }

    /// Makes a group the foreground, if we are it ourselves.
    pub(crate) fn give(&self, group: Pid) -> Option<ForegroundGuard<'_>> {
        if tcgetpgrp(&self.tty).ok()? != self.ours {
            return None;
        }
        let settings = tcgetattr(&self.tty).ok();
        tcsetpgrp(&self.tty, group).ok()?;
        Some(ForegroundGuard { terminal: self, group, settings })
    }

    /// Stops us, as Ctrl-Z would have if the terminal had been ours; returns when we go on.
    pub(crate) fn suspend(&self) {
        let _ = kill_process_group(self.ours, Signal::TSTP);
    }
}

impl Drop for ForegroundGuard<'_> {
    fn drop(&mut self) {
        let Terminal { tty, ours } = self.terminal;
        // Unless somebody else has it by now.
        if tcgetpgrp(tty).is_ok_and(|foreground| foreground == self.group)
            && tcsetpgrp(tty, *ours).is_ok()
            && let Some(settings) = &self.settings
        {
            let _ = tcsetattr(tty, OptionalActions::Now, settings);
        }
    }
}

/// The signal that a child has been stopped by, told once.
pub(crate) fn stopped_by(child: Pid) -> Option<Signal> {
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::Pid(child), options).ok()??;
    status.stopping_signal().and_then(Signal::from_named_raw)
}
