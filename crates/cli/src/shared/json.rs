//! A shared limit as JSON. The help of `status` documents the fields.

use std::path::Path;

use serde_json::{Value, json};
use strict_rate_limiter::{Held, Unit};
use strict_rate_limiter_shared::folder::{Inspection, Process};

use super::State;

/// All that was seen of it, as one object.
pub(super) fn object(folder: &Path, seen: &Inspection) -> Value {
    let holders = seen.holders.iter().map(|holder| {
        let mut shown = process(&holder.process, holder.weight);
        shown["since_ns"] = holder.since_ns.into();
        shown
    });
    let waiters = seen.waiters.iter().map(|waiter| process(&waiter.process, waiter.weight));
    json!({
        "folder": folder.to_string_lossy(),
        "limits": seen.held.iter().map(limit).collect::<Vec<_>>(),
        "concurrency": seen.config.concurrency,
        "paced": seen.config.paced,
        "abandon_grace_ns": seen.config.abandon_grace_ns,
        "clock_drift_ppm": seen.config.clock_drift_ppm,
        "running": seen.running,
        "completed": seen.completed,
        "holders": holders.collect::<Vec<_>>(),
        "waiters": waiters.collect::<Vec<_>>(),
        "opens_in_ns": seen.opens_in_ns,
        "paused_for_ns": seen.paused_for_ns,
    })
}

fn limit(held: &Held) -> Value {
    let unit = if held.limit.unit() == Unit::Weight { "weight" } else { "task" };
    json!({
        "limit": held.limit.to_string(),
        "unit": unit,
        "rate": held.limit.rate(),
        "per_ns": held.limit.per_ns(),
        "held": held.units,
    })
}

fn process(process: &Process, weight: u64) -> Value {
    let state = match State::of(process) {
        State::Alive => "alive",
        State::Orphaned => "orphaned",
        State::Gone => "gone",
    };
    json!({ "pid": process.id, "command": process.command, "state": state, "weight": weight })
}
