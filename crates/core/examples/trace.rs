//! Performs random operations on machines and prints each with its answer, so that `proof/check` can compare
//! the answers with the proved model's.
//!
//! `cargo run -p strict-rate-limiter-core --example trace -- SEED MACHINES`
//!
//! One line for each operation: `OPERATION = ANSWER; RUNNING QUEUED HELD…`. A permit is named by the
//! number of grants before it.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write as _};
use std::time::Duration;

use fastrand::Rng;
use strict_rate_limiter_core::{
    Config, Decision, EnqueueError, Grant, Limit, Machine, Ticket, TryGrantError, Unit, raw,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (Some(seed), Some(machines)) = (arguments.next(), arguments.next()) else {
        return Err("give a seed and how many machines, as two numbers".into());
    };
    let (mut rng, machines) = (Rng::with_seed(seed?), machines?);
    let mut output = BufWriter::new(io::stdout().lock());
    for _ in 0..machines {
        let mut run = Run::new(&mut rng)?;
        for _ in 0..rng.u32(10..150) {
            run.step(&mut rng);
        }
        output.write_all(run.told.as_bytes())?;
    }
    output.flush()?;
    Ok(())
}

struct Run {
    machine: Machine<()>,
    now: u64,
    /// The number of grants so far.
    granted: u64,
    unclaimed: Vec<(Ticket, u64)>,
    permits: Vec<(u64, Grant)>,
    /// Tickets of the waiters.
    waiting: Vec<u64>,
    told: String,
}

impl Run {
    fn new(rng: &mut Rng) -> Result<Self, Box<dyn Error>> {
        let limits = (0..rng.u8(1..4)).map(|_| {
            let make = if rng.bool() { Limit::tasks } else { Limit::weight };
            make(rng.u64(1..8), Duration::from_nanos(rng.u64(1..60)))
        });
        let limits = limits.collect::<Result<Vec<_>, _>>()?;
        let config = Config {
            concurrency: rng.usize(1..5),
            queue_capacity: if rng.bool() { 1_000_000 } else { rng.usize(0..4) },
            abandon_grace_ns: if rng.bool() { 0 } else { rng.u64(1..40) },
            ..Config::new(limits)
        };
        let Config { concurrency, queue_capacity, abandon_grace_ns, .. } = config;
        let mut told = format!("made {concurrency} {queue_capacity} {abandon_grace_ns}");
        for limit in &config.limits {
            let unit = if limit.unit() == Unit::Task { 't' } else { 'w' };
            write!(told, " {unit} {} {}", limit.rate(), limit.per_ns())?;
        }
        told.push('\n');
        let (unclaimed, permits, waiting) = (vec![], vec![], vec![]);
        let machine = Machine::new(config)?;
        Ok(Self { machine, now: 0, granted: 0, unclaimed, permits, waiting, told })
    }

    fn step(&mut self, rng: &mut Rng) {
        self.now += [0, 0, 1, rng.u64(..20), rng.u64(..100)][rng.usize(..5)];
        // Now and then the clock is behind what it said before.
        let now = if rng.u8(..16) == 0 { self.now.saturating_sub(rng.u64(..40)) } else { self.now };
        let weight = rng.u64(..9);
        match rng.u8(..64) {
            0..8 => {
                let answer = match self.machine.grant_at_once(weight) {
                    Some(permit) => self.take(permit),
                    None => "nothing".into(),
                };
                self.tell(&format!("grant-at-once {weight}"), &answer);
            }
            8..16 => {
                let answer = match self.machine.try_grant(now, weight) {
                    Ok(permit) => self.take(permit),
                    Err(TryGrantError::Closed) => "closed".into(),
                    Err(TryGrantError::Busy { not_before: Some(at) }) => format!("busy {at}"),
                    Err(TryGrantError::Busy { not_before: None }) => "busy".into(),
                    Err(_) => "too heavy".into(),
                };
                self.tell(&format!("try-grant {now} {weight}"), &answer);
            }
            16..28 => {
                let answer = match self.machine.enqueue(weight, ()) {
                    Ok(queued) => {
                        self.waiting.push(raw::ticket_number(queued.ticket));
                        let accepted = if queued.accepted { "accepted" } else { "behind" };
                        format!("queued {} {accepted}", raw::ticket_number(queued.ticket))
                    }
                    Err(EnqueueError::Closed) => "closed".into(),
                    Err(_) => "too heavy".into(),
                };
                self.tell(&format!("enqueue {weight}"), &answer);
            }
            28..44 => self.poll(now),
            44..47 if !self.waiting.is_empty() => {
                let ticket = self.waiting.swap_remove(rng.usize(..self.waiting.len()));
                self.machine.cancel(raw::ticket(ticket));
                self.tell(&format!("leave {ticket}"), "done");
            }
            47..49 if !self.unclaimed.is_empty() => {
                let which = rng.usize(..self.unclaimed.len());
                let (ticket, name) = self.unclaimed.swap_remove(which);
                self.machine.cancel(ticket);
                self.tell(&format!("undo {name}"), "done");
            }
            49..62 => self.end_one(rng, now),
            62 if rng.bool() => {
                self.machine.resume();
                self.tell("resume", "done");
            }
            62 => {
                let until = now + rng.u64(..60);
                self.machine.pause_until(until);
                self.tell(&format!("pause {until}"), "done");
            }
            63 if rng.u8(..8) == 0 => {
                if rng.bool() {
                    self.machine.close();
                    self.tell("close", "done");
                } else {
                    drop(self.machine.abort());
                    self.waiting.clear();
                    self.tell("abort", "done");
                }
            }
            _ => {}
        }
    }

    fn poll(&mut self, now: u64) {
        let answer = match self.machine.poll(now) {
            Decision::Grant { ticket, .. } => {
                let name = self.granted;
                self.granted += 1;
                self.unclaimed.push((ticket, name));
                self.waiting.retain(|waiting| *waiting != raw::ticket_number(ticket));
                format!("granted {name} to {}", raw::ticket_number(ticket))
            }
            Decision::Accept { ticket } => format!("accepted {}", raw::ticket_number(ticket)),
            Decision::LookAgainAt(at) => format!("look {at}"),
            Decision::WaitForCompletion => "wait".into(),
            Decision::Idle => "idle".into(),
            decision => panic!("{decision:?}"),
        };
        self.tell(&format!("poll {now}"), &answer);
    }

    /// A task completes, is abandoned, or its grant is undone.
    fn end_one(&mut self, rng: &mut Rng, now: u64) {
        if !self.unclaimed.is_empty() && rng.bool() {
            let which = rng.usize(..self.unclaimed.len());
            let (ticket, name) = self.unclaimed.swap_remove(which);
            self.permits.extend(self.machine.claim(ticket).map(|permit| (name, permit)));
        }
        if self.permits.is_empty() {
            if rng.u8(..4) == 0 {
                // No permit is out, so this one is made up.
                let (weight, ended) = (rng.u64(..9), now + rng.u64(..4));
                self.machine.complete(raw::grant(weight), now, ended, None);
                self.tell(&format!("complete-unknown {weight} {now} {ended}"), "done");
            }
            return;
        }
        let (name, permit) = self.permits.swap_remove(rng.usize(..self.permits.len()));
        // A clock with an error bound gives the latest time at which the task can have ended.
        let ended = now + if rng.u8(..4) == 0 { rng.u64(..4) } else { 0 };
        match rng.u8(..8) {
            0 => {
                self.machine.undo(permit);
                self.tell(&format!("undo {name}"), "done");
            }
            1 | 2 => {
                self.machine.abandon(permit, now, ended);
                self.tell(&format!("abandon {name} {now} {ended}"), "done");
            }
            3..5 => {
                let actual = rng.u64(..12);
                self.machine.complete(permit, now, ended, Some(actual));
                self.tell(&format!("complete {name} {now} {ended} {actual}"), "done");
            }
            _ => {
                self.machine.complete(permit, now, ended, None);
                self.tell(&format!("complete {name} {now} {ended} -"), "done");
            }
        }
    }

    fn take(&mut self, permit: Grant) -> String {
        let name = self.granted;
        self.granted += 1;
        self.permits.push((name, permit));
        format!("granted {name}")
    }

    fn tell(&mut self, operation: &str, answer: &str) {
        let state = self.machine.state();
        let (running, queued) = (state.running, state.queue.len());
        write!(self.told, "{operation} = {answer}; {running} {queued}").expect("it is a string");
        for held in state.held() {
            write!(self.told, " {held}").expect("it is a string");
        }
        self.told.push('\n');
    }
}
