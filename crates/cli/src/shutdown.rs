//! The stages of a shutdown: gently (start nothing more), then for good (kill what runs). Signals advance it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Error, exit};

/// The stage of the shutdown. Later variants are further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Run,
    /// Start nothing more; running commands may end.
    Graceful,
    /// Kill the running commands.
    Kill,
}

/// Announces the stage of the shutdown to all tasks.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown {
    level: watch::Sender<Level>,
    /// The exit code of the first signal; 0 for none.
    signalled: Arc<AtomicU8>,
}

impl Shutdown {
    pub(crate) fn new() -> Self {
        Self { level: watch::Sender::new(Level::Run), signalled: Arc::default() }
    }

    pub(crate) fn begin(&self) {
        self.level.send_modify(|level| *level = (*level).max(Level::Graceful));
    }

    /// Begins a gentle shutdown because of a signal, with this exit code.
    pub(crate) fn interrupted(&self, code: u8) {
        let _ = self.signalled.compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed);
        self.begin();
    }

    /// The exit code of the signal that stopped the run, if one did.
    pub(crate) fn signalled(&self) -> Option<u8> {
        Some(self.signalled.load(Ordering::Relaxed)).filter(|code| *code != 0)
    }

    pub(crate) fn has_begun(&self) -> bool {
        *self.level.borrow() > Level::Run
    }

    /// Returns once this stage is reached.
    pub(crate) async fn reached(&self, wanted: Level) {
        let mut level = self.level.subscribe();
        // The sender is `self`: it cannot be gone.
        let _ = level.wait_for(|level| *level >= wanted).await;
    }

    /// Installs the signal handlers: the first signal stops the run gently, the second for good.
    ///
    /// A SIGHUP only stops it gently, however often: a closed terminal sends two, and a service manager sends one
    /// along with SIGTERM. If SIGHUP is ignored from the start, as under nohup, it stays ignored.
    pub(crate) fn on_signals(&self, mut tell: impl FnMut(Level) + 'static) -> Result<(), Error> {
        let listen = |kind| signal(kind).map_err(Error::Start);
        let mut signals = Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            quit: listen(SignalKind::quit())?,
            hang_up: if is_ignored(SignalKind::hangup()) {
                None
            } else {
                Some(listen(SignalKind::hangup())?)
            },
            // Where it is ignored from the start, nobody could be waited for.
            _child: listen(SignalKind::child())?,
        };
        let shutdown = self.clone();
        tokio::task::spawn_local(async move {
            loop {
                let code = signals.next().await;
                let further = shutdown.has_begun() && code != exit::HUNG_UP;
                let was_set = shutdown.has_begun();
                shutdown.interrupted(code);
                if further {
                    shutdown.level.send_replace(Level::Kill);
                    tell(Level::Kill);
                } else if !was_set {
                    tell(Level::Graceful);
                }
            }
        });
        Ok(())
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hang_up: Option<Signal>,
    _child: Signal,
}

impl Signals {
    /// The exit code of the next signal: 128 and its number.
    async fn next(&mut self) -> u8 {
        let hung_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => exit::INTERRUPTED,
            _ = self.terminate.recv() => exit::TERMINATED,
            _ = self.quit.recv() => exit::QUIT,
            _ = hung_up => exit::HUNG_UP,
        }
    }
}

/// Whether our parent made us ignore a signal, according to `/proc`.
fn is_ignored(kind: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_in_mask(&status, kind.as_raw_value())
}

fn is_in_mask(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_mask() {
        let status = "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\tffffffffffffffff\n";
        assert!(is_in_mask(status, 1) && is_in_mask(status, 13));
        assert!(!is_in_mask(status, 2) && !is_in_mask("", 1));
    }
}
