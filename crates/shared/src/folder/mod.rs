//! A folder that holds one limit for all processes of a machine.
//!
//! ```text
//! api.limit/
//!   state              the state, locked while a process reads or changes it (slots.rs)
//!   sessions/7         locked by the process whose session it is (session.rs)
//!   sessions/7.process locked by the process alone, if children of it lock the session too
//!   sessions/7.socket  wakes that process (wake.rs)
//! ```
//!
//! Core's machine decides. A process locks the folder, moves its own machine to the present state, changes it, writes
//! it, and unlocks. So there is one machine for all, and nothing is decided twice.

mod clock;
mod error;
mod inspect;
mod names;
mod place;
mod session;
mod settings;
mod slots;
mod wake;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};

use strict_rate_limiter_core::{Machine, Moved, SessionId, State, Ticket, raw};

pub use clock::BootClock;
pub use error::FolderError;
pub use inspect::{Holder, Inspection, Process, Waiting, forget, inspect};
pub use names::find;
pub use settings::FolderSettings;

use clock::{BootId, boot_id};
use session::{SessionFiles, SignsOfLife};
use slots::{STATE_FILE, Slots, Written};
use wake::WakeSocket;

/// The machine's time at the start of the computer. It leaves room for times before it, and is that of the Rust
/// library's clocks.
pub const ORIGIN_NS: u64 = 1 << 60;

/// How often a process looks whether the folder is still in its place.
const LOOKS_FOR_FOLDER_EVERY_NS: u64 = 1_000_000;

/// The bytes of a boot and a time.
const STAMP_LEN: usize = 16 + 8 + 16;

/// An open folder: one session of one process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    slots: Slots,
    /// The state file's device and number: a folder made anew has another.
    identity: (u64, u64),
    session: SessionId,
    files: SessionFiles,
    /// Whether there was no state when it was opened.
    was_without_state: bool,
    /// Locked while this session lives.
    _signs_of_life: SignsOfLife,
    socket: WakeSocket,
    clock: BootClock,
    boot: BootId,
    process: u32,
    known: Mutex<Known>,
}

/// What is known of the state, and the buffers for it.
#[derive(Debug, Default)]
struct Known {
    /// The state that the machine has; `None` if it must be read again.
    state: Option<Written>,
    /// The highest number ever seen.
    highest: u64,
    /// The state's bytes, behind their boot and time.
    bytes: Vec<u8>,
    spare: Vec<u8>,
    /// Whether an older state was put in the place of one that this process has seen. That stays so: others may have gone
    /// on from it.
    is_rolled_back: bool,
    /// When the folder was last seen in its place.
    seen_in_place_ns: u64,
}

impl Folder {
    /// Opens the folder, makes it if it is not there, and begins a session. Returns the machine as well, which acts as
    /// the session. The machine's time is [`ORIGIN_NS`] when the boot clock reads 0.
    ///
    /// A folder without a state has been used before or has not, and that cannot be told: its limits count as used up
    /// as of now, unless the settings say that it is new.
    pub fn open<T>(
        path: &Path,
        settings: &FolderSettings,
        waiter: impl FnMut(Ticket) -> T,
    ) -> Result<(Self, Machine<T>), FolderError> {
        let (clock, boot) = (BootClock::new(), boot_id()?);
        place::make(path)?;
        let folder = place::check(path)?;
        // A path that stays the same whatever the process's working folder becomes.
        let path = &path.canonicalize().map_err(FolderError::io("find", path))?;
        let mode = place::file_mode(&folder);
        let (slots, identity) = loop {
            let slots = Slots::open(path, mode)?;
            lock(&slots.file).map_err(FolderError::io("lock", path))?;
            let metadata = slots.file.metadata().map_err(FolderError::io("open", path))?;
            let identity = (metadata.dev(), metadata.ino());
            if identity_of(path) == Some(identity) {
                break (slots, identity);
            }
            // It was removed since it was opened.
            place::make(path)?;
        };
        let unlocks = Unlocks(&slots.file);
        let now = || ORIGIN_NS.saturating_add(clock.now_ns());
        let mut known = Known::default();
        let found = slots.read(&mut known.bytes)?;
        let mut machine = match found {
            // Others may still use a folder that this one has replaced.
            None => settings.new_machine(path, now().saturating_add(LOOKS_FOR_FOLDER_EVERY_NS))?,
            Some(state) => {
                (known.state, known.highest) = (Some(state), state.sequence);
                let (stamp, state) = read_state(path, &known.bytes)?;
                let mut machine =
                    Machine::restore(&state, waiter).map_err(|e| FolderError::state(path, &e))?;
                if stamp.boot != boot {
                    machine.restart(ORIGIN_NS);
                } else if stamp.file != identity {
                    // A copy: what has happened since it was made is not known.
                    machine.restart(now());
                }
                settings.compare(path, machine.config())?;
                machine
            }
        };
        let files = SessionFiles::open(path, mode)?;
        let (session, signs_of_life) = loop {
            let session = machine.open_session();
            let number = raw::session_number(session);
            // A session of a state that was removed may still have its file.
            if let Some(signs) =
                files.begin(number, &settings::label(), settings.children_inherit)?
            {
                break (session, signs);
            }
        };
        let number = raw::session_number(session);
        let socket = WakeSocket::bind(&files.socket(number), mode);
        let socket = socket.map_err(FolderError::io("make a socket in", path))?;
        let mut ended = Vec::new();
        for old in files.all()? {
            if !files.may_live(old) {
                let now = now();
                machine.end_session(raw::session(old), now, now);
                ended.push(old);
            } else if !files.process_may_live(old) {
                machine.end_waiting(raw::session(old));
            }
        }
        // From here on the folder unlocks.
        std::mem::forget(unlocks);
        let folder = Self {
            path: path.clone(),
            slots,
            identity,
            session,
            files,
            was_without_state: found.is_none(),
            _signs_of_life: signs_of_life,
            socket,
            clock,
            boot,
            process: process::id(),
            known: Mutex::new(known),
        };
        let saved = folder.save(&mut machine);
        if saved.is_ok() {
            // Not before: while the state names a session, its file says whether it lives.
            for old in ended {
                folder.files.remove(old);
            }
        }
        folder.unlock();
        saved?;
        Ok((folder, machine))
    }

    /// Locks the folder and moves the machine to the present state. Returns the session's waiters that are no longer
    /// in the queue. [`Self::save`] what was changed, then [`Self::unlock`]. On an error nothing is locked.
    pub fn lock<T>(
        &self,
        machine: &mut Machine<T>,
        waiter: impl FnMut(Ticket) -> T,
    ) -> Result<Vec<Moved<T>>, FolderError> {
        if self.process != process::id() {
            return Err(FolderError::Forked { path: self.path.clone() });
        }
        lock(&self.slots.file).map_err(FolderError::io("lock", &self.path))?;
        self.follow(machine, waiter).inspect_err(|_| self.unlock())
    }

    fn follow<T>(
        &self,
        machine: &mut Machine<T>,
        waiter: impl FnMut(Ticket) -> T,
    ) -> Result<Vec<Moved<T>>, FolderError> {
        let known = &mut *self.known();
        let now_ns = self.clock.now_ns();
        if now_ns > known.seen_in_place_ns.saturating_add(LOOKS_FOR_FOLDER_EVERY_NS) {
            if identity_of(&self.path) != Some(self.identity) {
                return Err(FolderError::Replaced { path: self.path.clone() });
            }
            known.seen_in_place_ns = now_ns;
        }
        if let Some(state) = known.state
            && self.slots.is_present(state)?
        {
            return Ok(Vec::new());
        }
        known.state = None;
        let written = self.slots.read(&mut known.bytes)?;
        let written = written.ok_or_else(|| self.damaged("the state is gone"))?;
        if written.sequence < known.highest {
            known.is_rolled_back = true;
        }
        if known.is_rolled_back {
            return Err(self.damaged("it is older than it was"));
        }
        let (stamp, state) = read_state(&self.path, &known.bytes)?;
        if stamp.boot != self.boot || stamp.file != self.identity {
            known.is_rolled_back = true;
            return Err(self.damaged("it is of another boot, or a copy"));
        }
        let moved = machine.follow(&state, waiter);
        let moved = moved.map_err(|e| FolderError::state(&self.path, &e))?;
        (known.state, known.highest) = (Some(written), written.sequence);
        Ok(moved)
    }

    /// Writes the machine's state. Needs the lock. On an error nothing was changed, and the next [`Self::lock`] moves
    /// the machine back to the state before.
    pub fn save<T>(&self, machine: &mut Machine<T>) -> Result<(), FolderError> {
        let known = &mut *self.known();
        machine.coarsen();
        let mut state = machine.state();
        // That time has passed is no change.
        state.now = 0;
        let now = machine.now();
        let mut bytes = std::mem::take(&mut known.spare);
        bytes.clear();
        bytes.extend_from_slice(&self.boot);
        bytes.extend_from_slice(&now.to_le_bytes());
        bytes.extend_from_slice(&self.identity.0.to_le_bytes());
        bytes.extend_from_slice(&self.identity.1.to_le_bytes());
        state.write_to(&mut bytes);
        if known.state.is_some() && known.bytes.get(STAMP_LEN..) == Some(&bytes[STAMP_LEN..]) {
            known.spare = bytes;
            return Ok(());
        }
        known.spare = std::mem::replace(&mut known.bytes, bytes);
        known.state = None;
        let written = self.slots.write(known.highest + 1, &mut known.bytes)?;
        (known.state, known.highest) = (Some(written), written.sequence);
        Ok(())
    }

    /// Unlocks the folder.
    pub fn unlock(&self) {
        // An open file can always be unlocked.
        let _ = self.slots.file.unlock();
    }

    /// Those of these sessions that have died. Needs the lock. A session that has died must be ended at a time that is
    /// read after this: [`Machine::end_session`].
    pub fn dead(&self, mut sessions: Vec<SessionId>) -> Vec<SessionId> {
        sessions.retain(|session| !self.files.may_live(raw::session_number(*session)));
        sessions
    }

    /// Those of these sessions whose processes have died while children of them keep the sessions. Needs the lock. What
    /// they wait for is nobody's: [`Machine::end_waiting`].
    pub fn orphaned(&self, mut sessions: Vec<SessionId>) -> Vec<SessionId> {
        sessions.retain(|session| {
            let number = raw::session_number(*session);
            !self.files.process_may_live(number) && self.files.may_live(number)
        });
        sessions
    }

    /// Wakes a session: one of its waiters was granted, or is now the head of the queue.
    pub fn wake(&self, session: SessionId) {
        self.socket.wake(&self.files.socket(raw::session_number(session)));
    }

    /// Calls `woken` in a thread whenever another session wakes this one. `false` if that is impossible: then waiters
    /// depend on their timers.
    pub fn listen(&self, woken: impl Fn() + Send + 'static) -> bool {
        self.socket.listen(woken)
    }

    /// The clock of all processes.
    pub fn clock(&self) -> BootClock {
        self.clock
    }

    /// This process's session.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// What another session's process has said about itself.
    pub fn label(&self, session: SessionId) -> Option<String> {
        self.files.label(raw::session_number(session))
    }

    /// Whether the folder had no state when it was opened: it was made then, or had lost it.
    pub fn was_without_state(&self) -> bool {
        self.was_without_state
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the state that stands there has nothing of this session any more. If its last change could not be
    /// written, it may.
    fn has_ended(&self) -> bool {
        let known = self.known();
        let state = known.state.and_then(|_| read_state(&self.path, &known.bytes).ok());
        let machine = state.and_then(|(_, state)| Machine::restore(&state, |_| ()).ok());
        machine.is_some_and(|mut machine| {
            machine.act_as(self.session);
            machine.is_drained()
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self, what: &str) -> FolderError {
        damaged(&self.path, what)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // In a forked child the files are the parent's. Without its file, a session that holds something would never be
        // taken for dead.
        if self.process == process::id() && self.has_ended() {
            self.files.remove(raw::session_number(self.session));
        }
    }
}

/// Which boot a state is of, and in which file it was written.
struct Stamp {
    boot: BootId,
    file: (u64, u64),
}

/// What a slot holds: the boot, the latest time seen, the file's identity, and the state.
fn read_state(path: &Path, bytes: &[u8]) -> Result<(Stamp, State), FolderError> {
    let cut_off = || damaged(path, "its stamp is cut off");
    let (boot, bytes) = bytes.split_first_chunk::<16>().ok_or_else(cut_off)?;
    let (now, bytes) = bytes.split_first_chunk::<8>().ok_or_else(cut_off)?;
    let (device, bytes) = bytes.split_first_chunk::<8>().ok_or_else(cut_off)?;
    let (number, bytes) = bytes.split_first_chunk::<8>().ok_or_else(cut_off)?;
    let state = State::from_bytes(bytes).map_err(|error| FolderError::state(path, &error))?;
    let file = (u64::from_le_bytes(*device), u64::from_le_bytes(*number));
    let stamp = Stamp { boot: *boot, file };
    Ok((stamp, State { now: u64::from_le_bytes(*now), ..state }))
}

/// Unlocks the file when it is dropped. That it is closed is not enough: a forked child may have it open as well.
struct Unlocks<'a>(&'a fs::File);

impl Drop for Unlocks<'_> {
    fn drop(&mut self) {
        // An open file can always be unlocked.
        let _ = self.0.unlock();
    }
}

fn damaged(path: &Path, what: &str) -> FolderError {
    FolderError::Damaged { path: path.to_owned(), what: what.to_owned() }
}

/// The device and number of the state file that the path leads to.
fn identity_of(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path.join(STATE_FILE)).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Waits for the lock, which all others hold for microseconds.
fn lock(file: &fs::File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            locked => return locked,
        }
    }
}
