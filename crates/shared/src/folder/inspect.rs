//! Looks at a folder without a session, and forgets one.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use strict_rate_limiter_core::{Config, Held, Machine, PermitOut, SessionId, raw};

use super::clock::boot_id;
use super::error::FolderError;
use super::session::{SESSIONS, SessionFiles};
use super::slots::{STATE_FILE, Slots};
use super::{BootClock, ORIGIN_NS, Unlocks, identity_of, lock, place, read_state};

/// What a folder says of its limit at one moment. Times are in nanoseconds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inspection {
    /// The settings.
    pub config: Config,
    /// The units held of each limit.
    pub held: Vec<Held>,
    /// Tasks completed since the folder was made.
    pub completed: u64,
    /// Tasks that run now, those included whose process is gone and whose grace is not over.
    pub running: usize,
    /// The tasks that hold permits, oldest first.
    pub holders: Vec<Holder>,
    /// Those who wait, first to last.
    pub waiters: Vec<Waiting>,
    /// How long until the first waiter, or a task of weight 1, can be granted; `None` if that depends on running tasks.
    pub opens_in_ns: Option<u64>,
    /// How long the pause lasts; 0 if there is none.
    pub paused_for_ns: u64,
}

/// A process with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// Its number, as it has said; `None` if its file cannot be read.
    pub id: Option<u32>,
    /// Its command.
    pub command: String,
    /// Whether it, or a child that has inherited its session, may live.
    pub may_live: bool,
    /// Whether it may live itself. If it does not, and a child does, what it holds is held, and nobody waits.
    pub may_live_itself: bool,
}

/// A task that holds a permit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process that runs it.
    pub process: Process,
    /// The weight that is reserved.
    pub weight: u64,
    /// For how long it has been held.
    pub since_ns: u64,
}

/// A task that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// The process that waits.
    pub process: Process,
    /// The weight that it asks for.
    pub weight: u64,
}

/// Looks at a folder, which must have a state.
pub fn inspect(path: &Path) -> Result<Inspection, FolderError> {
    place::check(path)?;
    let (clock, boot) = (BootClock::new(), boot_id()?);
    let slots = Slots::open_to_read(path)?;
    slots.file.lock_shared().map_err(FolderError::io("lock", path))?;
    let unlocks = Unlocks(&slots.file);
    let mut bytes = Vec::new();
    let read = slots.read(&mut bytes);
    let now = ORIGIN_NS.saturating_add(clock.now_ns());
    drop(unlocks);
    read?.ok_or_else(|| FolderError::NoLimits { path: path.to_owned() })?;
    let (stamp, state) = read_state(path, &bytes)?;
    let machine = Machine::restore(&state, |_| ());
    let mut machine = machine.map_err(|error| FolderError::state(path, &error))?;
    if stamp.boot != boot {
        machine.restart(ORIGIN_NS);
    } else if Some(stamp.file) != identity_of(path) {
        machine.restart(now);
    }
    let files = SessionFiles::of(path);
    let process = |session: SessionId| {
        let number = raw::session_number(session);
        let label = files.label(number).unwrap_or_default();
        let (id, command) = label.split_once('\n').unwrap_or_default();
        let command = command.trim_end().to_owned();
        Process {
            id: id.parse().ok(),
            command,
            may_live: files.may_live(number),
            may_live_itself: files.process_may_live(number),
        }
    };
    let stats = machine.stats(now);
    let holder = |permit: PermitOut| Holder {
        process: process(permit.session),
        weight: permit.weight,
        since_ns: now.saturating_sub(permit.granted_at),
    };
    let waiting = |(_, session, weight)| Waiting { process: process(session), weight };
    Ok(Inspection {
        config: machine.config().clone(),
        held: stats.held,
        completed: stats.completed,
        running: stats.running,
        holders: machine.permits_out().map(holder).collect(),
        waiters: machine.waiting().map(waiting).collect(),
        opens_in_ns: stats.next_opening.map(|at| at.saturating_sub(now)),
        paused_for_ns: machine.paused_until().saturating_sub(now),
    })
}

/// Removes a folder with all that it knows. Processes that have it open get [`FolderError::Replaced`]. Whoever opens it
/// next finds no state, so all of its limits count as used up then.
pub fn forget(path: &Path) -> Result<(), FolderError> {
    place::check(path)?;
    let state = path.join(STATE_FILE);
    let file = File::open(&state).map_err(FolderError::io("open", &state))?;
    lock(&file).map_err(FolderError::io("lock", path))?;
    let unlocks = Unlocks(&file);
    // Whoever opens it anew makes files of his own, so nothing of his may be removed here.
    let sessions = path.join(SESSIONS);
    let old = path.join(format!("{SESSIONS}.{}", std::process::id()));
    let renamed = match fs::rename(&sessions, &old) {
        // A folder that was never given its limits has none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        renamed => renamed.map(|()| true).map_err(FolderError::io("remove", &sessions))?,
    };
    fs::remove_file(&state).map_err(FolderError::io("remove", &state))?;
    drop(unlocks);
    if renamed {
        fs::remove_dir_all(&old).map_err(FolderError::io("remove", &old))?;
    }
    // Somebody may have made it anew already, or keep a file of his own in it.
    let _ = fs::remove_dir(path);
    Ok(())
}
