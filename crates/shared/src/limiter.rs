//! `SharedRateLimiter`: the library's limiter over a folder.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use strict_rate_limiter::clock::{Clock, SystemTimer, Timer};
use strict_rate_limiter::store::{self, Store, StoreError};
use strict_rate_limiter::{Limit, RateLimiter};
use strict_rate_limiter_core::limit::saturating_ns;
use strict_rate_limiter_core::{Machine, Moved, SessionId};

use crate::folder::{BootClock, Folder, FolderError, FolderSettings, ORIGIN_NS};

// The machine's times are the same in the folder and in the library.
const _: () = assert!(ORIGIN_NS == store::ORIGIN_NS);

/// The longest that a timer waits at once: the system's timers stand still while the machine sleeps, and the boot clock
/// does not.
const WAITS_AT_MOST: Duration = Duration::from_secs(10);

/// A limiter that all processes of a machine share which open the same folder: one queue, one window for each limit,
/// however many processes there are, whenever they start, and however they end.
///
/// It is used as a [`RateLimiter`], which it derefs to: tower's layer and reqwest's middleware take a clone of that.
///
/// ```
/// use strict_rate_limiter_shared::SharedRateLimiter;
///
/// # let folder = std::env::temp_dir().join(format!("srl-doc-{}", std::process::id()));
/// # let _ = std::fs::remove_dir_all(&folder);
/// // Every process that opens this folder runs under the one limit.
/// let limiter = SharedRateLimiter::builder(&folder).limit("10/20ms".parse()?).open()?;
/// for call in 0..25 {
///     let permit = limiter.acquire_blocking()?;
///     // Make the call here, while the permit is held.
///     permit.complete();
/// }
/// # drop(limiter);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What differs from a limiter of one process
///
/// * The clock counts suspends, and nobody can set it. All processes have the same.
/// * Up to 4,096 tasks may wait, in all processes together; with more, requests fail with `Full`.
/// * [`close`](RateLimiter::close), [`abort`](RateLimiter::abort) and [`drained`](RateLimiter::drained) are about this
///   process's tasks. Everything else is about all of them: [`stats`](RateLimiter::stats),
///   [`pause_until`](RateLimiter::pause_until), [`set_limits`](RateLimiter::set_limits).
/// * If the folder fails (a full disk, a removed or damaged folder), nothing is granted: requests get
///   [`AcquireError::Store`](strict_rate_limiter::AcquireError::Store), and so do those that wait. Ends of tasks are
///   kept, and written as soon as that is possible. [`outage`](RateLimiter::outage) tells.
/// * A process that dies leaves the queue. Its tasks count as ended when that is noticed (within a tenth of a second if
///   somebody waits for it), and [`abandon_grace`](SharedRateLimiterBuilder::abandon_grace) later. A process that is
///   merely stopped keeps what it has.
/// * After a `fork`, the child must open the folder again; until then it gets an error.
#[derive(Clone)]
pub struct SharedRateLimiter {
    limiter: RateLimiter,
    folder: Arc<Folder>,
}

/// Opens a [`SharedRateLimiter`]; from [`SharedRateLimiter::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder opens nothing until `open`"]
pub struct SharedRateLimiterBuilder {
    path: PathBuf,
    settings: FolderSettings,
    name: Option<Arc<str>>,
}

impl SharedRateLimiter {
    /// Opens a folder that has its limits already.
    ///
    /// # Errors
    ///
    /// As [`SharedRateLimiterBuilder::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, FolderError> {
        Self::builder(folder).open()
    }

    /// A builder, to say which limits the folder has.
    pub fn builder(folder: impl AsRef<Path>) -> SharedRateLimiterBuilder {
        SharedRateLimiterBuilder {
            path: folder.as_ref().to_owned(),
            settings: FolderSettings::default(),
            name: None,
        }
    }

    /// The folder, for what is not about tasks.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }
}

impl SharedRateLimiterBuilder {
    /// Adds a limit. If the folder has limits already, they must be the same; without any, the folder's hold.
    pub fn limit(mut self, limit: Limit) -> Self {
        self.settings.limits.push(limit);
        self
    }

    /// Adds several limits.
    pub fn limits(mut self, limits: impl IntoIterator<Item = Limit>) -> Self {
        self.settings.limits.extend(limits);
        self
    }

    /// Spreads tasks over the period: see [`RateLimiterBuilder::paced`](strict_rate_limiter::RateLimiterBuilder::paced).
    pub fn paced(mut self) -> Self {
        self.settings.paced = Some(true);
        self
    }

    /// How many tasks may run at once, in all processes together: 1 in a new folder, unless this says otherwise.
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.settings.concurrency = Some(tasks);
        self
    }

    /// How many tasks may run at once in a folder that is made anew, in all processes together. A folder that is there
    /// keeps its own number, whatever that is.
    pub fn concurrency_if_new(mut self, tasks: usize) -> Self {
        self.settings.concurrency_if_new = Some(tasks);
        self
    }

    /// How long a task whose process died, or that was dropped while it ran, still counts as running.
    pub fn abandon_grace(mut self, grace: Duration) -> Self {
        self.settings.abandon_grace_ns = Some(saturating_ns(grace));
        self
    }

    /// How much faster this machine's clock may run than the protected system's, in parts per million.
    pub fn clock_drift(mut self, ppm: u32) -> Self {
        self.settings.clock_drift_ppm = Some(ppm);
        self
    }

    /// Says that nothing has run under these limits before. Without this, the limits of a folder that has no state count
    /// as used up when it is made: the state may have been lost, and that cannot be told from a first use.
    pub fn fresh(mut self) -> Self {
        self.settings.is_new = true;
        self
    }

    /// Has commands that this process starts keep its session alive: if the process is killed, what it held is held
    /// until the last of them has ended as well.
    pub fn inherited_by_children(mut self) -> Self {
        self.settings.children_inherit = true;
        self
    }

    /// The limiter's name in spans, in metrics and in `Debug`. By default its limits, as text.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Opens the folder, and makes it if it is not there; its parent must be.
    ///
    /// # Errors
    ///
    /// [`FolderError`] says which settings differ, or why the folder cannot be used.
    pub fn open(self) -> Result<SharedRateLimiter, FolderError> {
        let (folder, machine) =
            Folder::open(&self.path, &self.settings, |_| Waker::noop().clone())?;
        let folder = Arc::new(folder);
        let clock = folder.clock();
        let limiter = store::limiter(FolderStore(Arc::clone(&folder)), machine, clock, self.name);
        Ok(SharedRateLimiter { limiter, folder })
    }
}

impl Deref for SharedRateLimiter {
    type Target = RateLimiter;

    fn deref(&self) -> &RateLimiter {
        &self.limiter
    }
}

impl fmt::Debug for SharedRateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRateLimiter")
            .field("folder", &self.folder.path())
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct FolderStore(Arc<Folder>);

impl Store for FolderStore {
    fn lock(&self, machine: &mut Machine<Waker>) -> Result<Vec<Moved<Waker>>, StoreError> {
        self.0.lock(machine, |_| Waker::noop().clone()).map_err(StoreError::new)
    }

    fn save(&self, machine: &mut Machine<Waker>) -> Result<(), StoreError> {
        self.0.save(machine).map_err(StoreError::new)
    }

    fn unlock(&self) {
        self.0.unlock();
    }

    fn dead(&self, sessions: Vec<SessionId>) -> Vec<SessionId> {
        self.0.dead(sessions)
    }

    fn orphaned(&self, sessions: Vec<SessionId>) -> Vec<SessionId> {
        self.0.orphaned(sessions)
    }

    fn wake(&self, session: SessionId) {
        self.0.wake(session);
    }

    fn listen(&self, waker: Waker) {
        // Where there is no thread for it, waiters have their timers.
        self.0.listen(move || waker.wake_by_ref());
    }
}

impl Clock for BootClock {
    fn now_ns(&self) -> u64 {
        BootClock::now_ns(self)
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(BootTimer { clock: *self, timer: SystemTimer::new() })
    }

    fn wakes_late(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct BootTimer {
    clock: BootClock,
    timer: SystemTimer,
}

impl Timer for BootTimer {
    fn set(&mut self, at_ns: u64, waker: &Waker) -> Poll<()> {
        let wait = at_ns.saturating_sub(BootClock::now_ns(&self.clock));
        self.timer.set(Duration::from_nanos(wait).min(WAITS_AT_MOST), waker)
    }

    fn clear(&mut self) {
        self.timer.clear();
    }
}
