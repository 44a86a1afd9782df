//! Requests inside running tasks of the same machine: whether they can ever be granted.
//!
//! Such a task keeps its permit while it waits, so it may wait for itself, alone or together with others.
//! The machine does not know which task makes a request. A caller that knows checks here before the waiter joins.

use alloc::vec::Vec;

use crate::limit::{Limit, Unit};
use crate::machine::Machine;
use crate::types::Ticket;
use crate::window::Window;

/// A task that holds a permit of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningTask {
    /// Identifies the task among those that run; the caller chooses it.
    pub id: u64,
    /// The weight that its permit reserves.
    pub weight: u64,
}

/// A waiter in the queue that was requested inside running tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsideWaiter {
    /// Its ticket.
    pub ticket: Ticket,
    /// The tasks inside which it was requested. None of them ends before it is granted.
    pub tasks: Vec<RunningTask>,
}

/// A running task, and the number of waiters that it waits for.
struct Stuck {
    task: RunningTask,
    waiters: usize,
}

impl<T> Machine<T> {
    /// Whether a new waiter of `weight`, requested inside the running `tasks`, could ever be granted.
    /// `inside` are the earlier waiters that were requested inside running tasks.
    ///
    /// It could not if all tasks that could make room for it, or for a waiter ahead of it, wait inside as
    /// well. All other tasks are assumed to end, and all windows to empty.
    ///
    /// Takes time linear in the length of the queue if there are limits on weight.
    pub fn could_nest(&self, tasks: &[RunningTask], weight: u64, inside: &[InsideWaiter]) -> bool {
        let waits = |waiter: &&InsideWaiter| self.queue.is_accepted(waiter.ticket).is_some();
        let mut stuck = Vec::new();
        let in_queue = inside.iter().filter(waits).flat_map(|waiter| &waiter.tasks);
        in_queue.chain(tasks).for_each(|task| wait_for_one_more(&mut stuck, *task));
        let counts_tasks = |limit: Limit| limit.unit() == Unit::Task;
        if self.windows.all.iter().map(Window::limit).all(counts_tasks) {
            // All waiters need the same, and stuck tasks only become fewer.
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

    /// A waiter of `inside` that now waits for ever, after limits or concurrency were lowered: the last of those
    /// that joined, if all of them together leave no room for the queue to go on. Cancel it, and ask again.
    pub fn stranded(&self, inside: &[InsideWaiter]) -> Option<Ticket> {
        let waits = |waiter: &&InsideWaiter| self.queue.is_accepted(waiter.ticket).is_some();
        let last = inside.iter().filter(waits).map(|waiter| waiter.ticket).max()?;
        let mut stuck = Vec::new();
        let in_queue = inside.iter().filter(waits).flat_map(|waiter| &waiter.tasks);
        in_queue.for_each(|task| wait_for_one_more(&mut stuck, *task));
        for (ticket, weight) in self.queue.waiting() {
            if stuck.is_empty() {
                break;
            }
            if !self.fits_beside(&stuck, weight) {
                return Some(last);
            }
            if let Some(granted) = inside.iter().find(|waiter| waiter.ticket == ticket) {
                granted.tasks.iter().for_each(|task| wait_for_one_less(&mut stuck, task.id));
            }
        }
        None
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
