//! Waiters that are asked for inside of running tasks of the same machine, which wait for them.
//!
//! Such a task keeps its permit while it waits, so it may be waiting for itself, alone or with others like
//! it. The machine knows nothing of who asks; a front that does asks it here before it joins.

use alloc::vec::Vec;

use crate::limit::{Limit, Unit};
use crate::machine::Machine;
use crate::types::Ticket;
use crate::window::Window;

/// A task that holds a permit of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningTask {
    /// Tells it apart from the others that run; the front's to choose.
    pub id: u64,
    /// The weight that its permit reserves.
    pub weight: u64,
}

/// A waiter in the line that was asked for inside of running tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsideWaiter {
    /// Its place in the line.
    pub ticket: Ticket,
    /// The tasks that it was asked for inside of. None of them is taken to end before it is granted.
    pub tasks: Vec<RunningTask>,
}

/// A running task, and how many waiters it waits for.
struct Stuck {
    task: RunningTask,
    waiters: usize,
}

impl<T> Machine<T> {
    /// Whether a newcomer of `weight`, asked for inside of the running `tasks`, could ever be granted.
    /// `inside` are the waiters that were asked for in the same way before.
    ///
    /// It could not, where all that could make room for it or for someone ahead of it in the line waits
    /// inside as well. Every other task is taken to end, and every window to empty.
    ///
    /// It costs time in the length of the line, where there are limits on weight.
    pub fn could_nest(&self, tasks: &[RunningTask], weight: u64, inside: &[InsideWaiter]) -> bool {
        let waits = |waiter: &&InsideWaiter| self.queue.is_accepted(waiter.ticket).is_some();
        let mut stuck = Vec::new();
        let in_line = inside.iter().filter(waits).flat_map(|waiter| &waiter.tasks);
        in_line.chain(tasks).for_each(|task| wait_for_one_more(&mut stuck, *task));
        let counts_tasks = |limit: Limit| limit.unit() == Unit::Task;
        if self.windows.all.iter().map(Window::limit).all(counts_tasks) {
            // All in the line need the same, and what is stuck only becomes less.
            return self.fits_beside(&stuck, weight);
        }
        for (ticket, waiting) in self.queue.waiting() {
            if !self.fits_beside(&stuck, waiting) {
                return false;
            }
            if let Some(granted) = inside.iter().find(|waiter| waiter.ticket == ticket) {
                granted.tasks.iter().for_each(|task| wait_for_one_less(&mut stuck, task.id));
            }
        }
        self.fits_beside(&stuck, weight)
    }

    fn fits_beside(&self, stuck: &[Stuck], weight: u64) -> bool {
        let fits = |limit: Limit| {
            let held = stuck.iter().map(|stuck| limit.units(stuck.task.weight));
            held.fold(limit.units(weight), u64::saturating_add) <= limit.rate()
        };
        stuck.len() < self.windows.config.concurrency
            && self.windows.all.iter().map(Window::limit).all(fits)
    }
}

fn wait_for_one_more(stuck: &mut Vec<Stuck>, task: RunningTask) {
    match stuck.iter_mut().find(|other| other.task.id == task.id) {
        Some(known) => known.waiters += 1,
        None => stuck.push(Stuck { task, waiters: 1 }),
    }
}

fn wait_for_one_less(stuck: &mut Vec<Stuck>, task: u64) {
    if let Some(index) = stuck.iter().position(|other| other.task.id == task) {
        stuck[index].waiters -= 1;
        if stuck[index].waiters == 0 {
            stuck.swap_remove(index);
        }
    }
}
