//! What happened in a run, in numbers.

use std::fmt;

/// Counts of what happened. They add up over runs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Runs.
    pub runs: u64,
    /// Tasks that ran, however they ended.
    pub tasks: u64,
    /// Tasks that were dropped while they ran.
    pub abandoned: u64,
    /// Tasks that panicked.
    pub panicked: u64,
    /// Callers that gave up waiting.
    pub gave_up: u64,
    /// Callers that left because their deadline came; they are among those that gave up.
    pub missed: u64,
    /// Grants that were undone because the caller had gone.
    pub undone: u64,
    /// Waiters that were aborted.
    pub aborted: u64,
    /// Callers that were refused: too heavy, closed, full, busy.
    pub refused: u64,
    /// How often a clock was set back.
    pub set_back: u64,
    /// How often limits and concurrency were changed.
    pub changed: u64,
    /// How often the process stalled.
    pub stalls: u64,
    /// How often the timer fired early or late.
    pub bad_timers: u64,
    /// Steps after which the library was compared with the model.
    pub compared: u64,
    /// Simulated time, in nanoseconds.
    pub simulated_ns: u64,
    /// Limits that were audited.
    pub audits: u64,
    /// Audited limits that were used to the last unit.
    pub full: u64,
    /// The fullest window of all, over its rate.
    pub fullest: f64,
    /// A hash of every step: two runs of one seed have the same.
    pub digest: u64,
}

impl Stats {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.tasks += other.tasks;
        self.abandoned += other.abandoned;
        self.panicked += other.panicked;
        self.gave_up += other.gave_up;
        self.missed += other.missed;
        self.undone += other.undone;
        self.aborted += other.aborted;
        self.refused += other.refused;
        self.set_back += other.set_back;
        self.changed += other.changed;
        self.stalls += other.stalls;
        self.bad_timers += other.bad_timers;
        self.compared += other.compared;
        self.simulated_ns += other.simulated_ns;
        self.audits += other.audits;
        self.full += other.full;
        self.fullest = self.fullest.max(other.fullest);
        self.digest ^= other.digest;
    }

    /// Mixes a step into the digest.
    pub(crate) fn note(&mut self, what: u64) {
        self.digest = (self.digest.rotate_left(5) ^ what).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, tasks, abandoned, panicked, gave_up, undone, aborted, refused, .. } = self;
        let Self {
            missed,
            changed,
            set_back,
            stalls,
            bad_timers,
            compared,
            audits,
            full,
            fullest,
            ..
        } = self;
        let hours = self.simulated_ns as f64 / 3.6e12;
        writeln!(f, "{tasks} tasks in {runs} runs, {hours:.1} hours of simulated time")?;
        writeln!(f, "  {abandoned} dropped while they ran, {panicked} panicked")?;
        writeln!(
            f,
            "  {gave_up} gave up waiting, {missed} at their deadlines, {undone} when already granted"
        )?;
        writeln!(f, "  {refused} refused, {aborted} aborted in the queue")?;
        writeln!(f, "  {stalls} stalls, {set_back} clocks set back, {bad_timers} bad timers")?;
        writeln!(f, "  {changed} changes of limits and concurrency")?;
        writeln!(f, "  {compared} comparisons with the model")?;
        write!(f, "  {audits} limits audited, {full} of them used to the last unit; ")?;
        write!(f, "fullest window / rate: {fullest:.6}")
    }
}
