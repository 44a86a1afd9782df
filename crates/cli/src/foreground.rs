//! Moves a command's process group to the foreground of the terminal when the command reads it.
//!
//! A command runs in a process group of its own in the background, so that Ctrl-C reaches only us. The kernel
//! stops the command when it reads the terminal or changes its settings, as ssh and sudo do to ask for a
//! password. With -j1 we then make its group the foreground group and continue it. When the command has ended
//! we take the terminal back and restore its settings. Ctrl-C and Ctrl-Z reach the command only meanwhile.

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

/// Keeps a command's group in the foreground until it is dropped.
#[derive(Debug)]
pub(crate) struct ForegroundGuard<'a> {
    terminal: &'a Terminal,
    group: Pid,
    settings: Option<Termios>,
}

impl Terminal {
    /// The controlling terminal of this process, if it has one.
    pub(crate) fn open() -> Option<Self> {
        let flags = OFlags::NOCTTY.bits().cast_signed();
        let tty =
            File::options().read(true).write(true).custom_flags(flags).open("/dev/tty").ok()?;
        // We take the terminal back from the background; unblocked, SIGTTOU would stop us there.
        // (The standard library unblocks all signals in its children.)
        let mut signals = SigSet::empty();
        signals.add(NixSignal::SIGTTOU);
        signals.thread_block().ok()?;
        Some(Self { tty, ours: getpgrp() })
    }

    /// Makes a group the foreground group, if ours is it now.
    pub(crate) fn give(&self, group: Pid) -> Option<ForegroundGuard<'_>> {
        if tcgetpgrp(&self.tty).ok()? != self.ours {
            return None;
        }
        let settings = tcgetattr(&self.tty).ok();
        tcsetpgrp(&self.tty, group).ok()?;
        Some(ForegroundGuard { terminal: self, group, settings })
    }

    /// Stops this process, as Ctrl-Z does in the foreground. Returns when it is continued.
    pub(crate) fn suspend(&self) {
        let _ = kill_process_group(self.ours, Signal::TSTP);
    }
}

impl Drop for ForegroundGuard<'_> {
    fn drop(&mut self) {
        let Terminal { tty, ours } = self.terminal;
        // Unless another group has it by now.
        if tcgetpgrp(tty).is_ok_and(|foreground| foreground == self.group)
            && tcsetpgrp(tty, *ours).is_ok()
            && let Some(settings) = &self.settings
        {
            let _ = tcsetattr(tty, OptionalActions::Now, settings);
        }
    }
}

/// The signal that stopped a child. The kernel reports each stop once.
pub(crate) fn stopped_by(child: Pid) -> Option<Signal> {
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::Pid(child), options).ok()??;
    status.stopping_signal().and_then(Signal::from_named_raw)
}
