//! The settings that a process opens a folder with, and how they compare with what the folder has.

use std::env;
use std::fmt::Write as _;
use std::path::Path;
use std::process;

use strict_rate_limiter_core::{Config, Limit, Machine};

use super::error::FolderError;

/// How many tasks may wait, in all processes together. It bounds the state.
const WAITERS_MAX: usize = 4_096;

/// The settings that a process asks for. What it leaves out is as the folder has it, or as by default in a new one.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FolderSettings {
    /// The limits; none: as the folder has them.
    pub limits: Vec<Limit>,
    /// See [`Config::paced`].
    pub paced: Option<bool>,
    /// How many tasks may run at once, in all processes together.
    pub concurrency: Option<usize>,
    /// As `concurrency`, for a folder that is made anew alone: one that is there keeps its own.
    pub concurrency_if_new: Option<usize>,
    /// See [`Config::abandon_grace_ns`].
    pub abandon_grace_ns: Option<u64>,
    /// See [`Config::clock_drift_ppm`].
    pub clock_drift_ppm: Option<u32>,
    /// Nothing ran under these limits before, so a folder without a state begins with all of them free.
    pub is_new: bool,
    /// Whether commands that this process starts keep its session alive.
    pub children_inherit: bool,
}

impl FolderSettings {
    /// The machine of a folder that has no state.
    pub(super) fn new_machine<T>(&self, path: &Path, now: u64) -> Result<Machine<T>, FolderError> {
        if self.limits.is_empty() {
            return Err(FolderError::NoLimits { path: path.to_owned() });
        }
        let defaults = Config::new(self.limits.iter().copied());
        let config = Config {
            paced: self.paced.unwrap_or(defaults.paced),
            concurrency: self
                .concurrency
                .or(self.concurrency_if_new)
                .unwrap_or(defaults.concurrency),
            abandon_grace_ns: self.abandon_grace_ns.unwrap_or(defaults.abandon_grace_ns),
            clock_drift_ppm: self.clock_drift_ppm.unwrap_or(defaults.clock_drift_ppm),
            queue_capacity: WAITERS_MAX,
            refuse_when_full: true,
            ..defaults
        };
        let mut machine = Machine::new(config)?;
        if !self.is_new {
            machine.assume_full(now);
        }
        Ok(machine)
    }

    /// Refuses settings that differ from those of the folder.
    pub(super) fn compare(&self, path: &Path, stored: &Config) -> Result<(), FolderError> {
        let limits = if self.limits.is_empty() { &stored.limits } else { &self.limits };
        let asked = Config {
            limits: limits.clone(),
            paced: self.paced.unwrap_or(stored.paced),
            concurrency: self.concurrency.unwrap_or(stored.concurrency),
            abandon_grace_ns: self.abandon_grace_ns.unwrap_or(stored.abandon_grace_ns),
            clock_drift_ppm: self.clock_drift_ppm.unwrap_or(stored.clock_drift_ppm),
            ..stored.clone()
        };
        let (stored, asked) = (show(stored), show(&asked));
        if stored == asked {
            return Ok(());
        }
        Err(FolderError::Different { path: path.to_owned(), stored, asked })
    }
}

/// What the session's file says about its process: its number and its command.
pub(super) fn label() -> String {
    let words: Vec<_> = env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    format!("{}\n{}\n", process::id(), words.join(" ").replace('\n', " "))
}

/// The settings as an error shows them; the same text for the same settings.
fn show(config: &Config) -> String {
    let mut limits: Vec<String> = config.limits.iter().map(Limit::to_string).collect();
    limits.sort_unstable();
    let mut text = limits.join(" ");
    if config.paced {
        text.push_str(", paced");
    }
    let at_once = if config.concurrency == 1 { "1 task at once" } else { "tasks at once" };
    let _ = match config.concurrency {
        1 => write!(text, ", {at_once}"),
        tasks => write!(text, ", {tasks} {at_once}"),
    };
    if config.abandon_grace_ns > 0 {
        let _ = write!(text, ", a grace of {} ns", config.abandon_grace_ns);
    }
    if config.clock_drift_ppm > 0 {
        let _ = write!(text, ", a clock drift of {} ppm", config.clock_drift_ppm);
    }
    text
}
