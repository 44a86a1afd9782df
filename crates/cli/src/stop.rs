//! Stopping: gently (nothing more is started) or for good (what runs is killed), and why.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Error, exit};

/// How far the run has been told to stop. Later is further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Go,
    /// Start nothing more; what runs may end.
    Gently,
    /// Kill what runs.
    Kill,
}

/// Tells everyone to stop.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    level: watch::Sender<Level>,
    /// The exit code of the signal that did it; 0 for none.
    signalled: Arc<AtomicU8>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Self { level: watch::Sender::new(Level::Go), signalled: Arc::default() }
    }

    pub(crate) fn gently(&self) {
        self.level.send_modify(|level| *level = (*level).max(Level::Gently));
    }

    /// The exit code of the signal that stopped the run, if one did.
    pub(crate) fn signalled(&self) -> Option<u8> {
        Some(self.signalled.load(Ordering::Relaxed)).filter(|code| *code != 0)
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.level.borrow() > Level::Go
    }

    /// Returns once the run has been told to stop as far as this.
    pub(crate) async fn reached(&self, wanted: Level) {
        let mut level = self.level.subscribe();
        // The sender is `self`: it cannot be gone.
        let _ = level.wait_for(|level| *level >= wanted).await;
    }

    /// From now on an interrupt stops the run gently, and a second one for good.
    pub(crate) fn on_signals(&self, mut tell: impl FnMut(Level) + 'static) -> Result<(), Error> {
        let listen = |kind| signal(kind).map_err(Error::Start);
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let stop = self.clone();
        tokio::task::spawn_local(async move {
            loop {
                let code = next(&mut interrupt, &mut terminate).await;
                stop.signalled.store(code, Ordering::Relaxed);
                let further = if stop.is_set() { Level::Kill } else { Level::Gently };
                stop.level.send_replace(further);
                tell(further);
            }
        });
        Ok(())
    }
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> u8 {
    tokio::select! {
        _ = interrupt.recv() => exit::INTERRUPTED,
        _ = terminate.recv() => exit::TERMINATED,
    }
}
