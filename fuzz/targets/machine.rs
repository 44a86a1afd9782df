//! Compares the machine with the slow oracle. The input encodes the operations.

#![no_main]

#[path = "../../crates/core/tests/oracle/mod.rs"]
mod oracle;

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use oracle::pair::{Op, Pair};
use strict_rate_limiter_core::{Config, Limit};

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let _ = live(&mut bytes);
});

fn live(bytes: &mut Unstructured<'_>) -> Result<()> {
    let overspends = bytes.arbitrary()?;
    let mut pair = Pair::new(config(bytes)?);
    // The oracle scans its whole history for each operation, so more operations only take time.
    for _ in 0..200 {
        if bytes.is_empty() {
            break;
        }
        let op = op(bytes)?;
        pair.step(&if overspends { op } else { op.without_overspend() });
    }
    if !overspends {
        pair.no_window_overflowed();
    }
    Ok(())
}

fn limits(bytes: &mut Unstructured<'_>) -> Result<Vec<Limit>> {
    let mut limits = vec![];
    for _ in 0..bytes.int_in_range(1..=3)? {
        let make = if bytes.arbitrary()? { Limit::tasks } else { Limit::weight };
        let rate = bytes.int_in_range(1..=8)?;
        let per = Duration::from_nanos(bytes.int_in_range(1..=60)?);
        limits.push(make(rate, per).expect("in range"));
    }
    Ok(limits)
}

fn config(bytes: &mut Unstructured<'_>) -> Result<Config> {
    let limits = limits(bytes)?;
    let has_task_limit = limits.iter().any(|limit| limit.units(2) == 1);
    Ok(Config {
        paced: bytes.arbitrary()? && has_task_limit,
        concurrency: bytes.int_in_range(1..=4)?,
        queue_capacity: if bytes.arbitrary()? { usize::MAX } else { bytes.int_in_range(0..=4)? },
        abandon_grace_ns: bytes.int_in_range(0..=40)?,
        clock_drift_ppm: if bytes.arbitrary()? { bytes.int_in_range(0..=500_000)? } else { 0 },
        ..Config::new(limits)
    })
}

fn op(bytes: &mut Unstructured<'_>) -> Result<Op> {
    let which = |bytes: &mut Unstructured<'_>| bytes.arbitrary::<u8>().map(usize::from);
    let weight = |bytes: &mut Unstructured<'_>| bytes.int_in_range(0..=8);
    Ok(match bytes.int_in_range(0..=15)? {
        0 | 1 => Op::Advance(bytes.arbitrary::<u8>()?.into()),
        2 => Op::ClockGoesBack(bytes.int_in_range(1..=50)?),
        3 => Op::Enqueue(weight(bytes)?),
        4 => Op::TryGrant(weight(bytes)?),
        5 => Op::GrantAtOnce(weight(bytes)?),
        6 => Op::Claim(which(bytes)?),
        7 => Op::CancelWaiting(which(bytes)?),
        8 => Op::CancelGranted(which(bytes)?),
        9 => Op::Undo(which(bytes)?),
        10 | 11 => Op::Complete {
            which: which(bytes)?,
            actual: if bytes.arbitrary()? { Some(bytes.int_in_range(0..=12)?) } else { None },
            bound: bytes.int_in_range(0..=3)?,
        },
        12 => Op::Abandon(which(bytes)?),
        13 => Op::Pause(bytes.int_in_range(0..=60)?),
        14 => Op::WriteDownAndReadBack,
        // Keep operations that end the machine rare.
        _ => match bytes.arbitrary::<u8>()? {
            0..8 => Op::Close,
            8..16 => Op::Abort,
            16..128 => Op::Reconcile {
                which: which(bytes)?,
                used: bytes.int_in_range(0..=12)?,
                bound: bytes.int_in_range(0..=3)?,
            },
            128..168 => Op::Resume,
            168..208 => Op::CompleteMadeUp {
                weight: bytes.arbitrary()?,
                actual: if bytes.arbitrary()? { Some(bytes.int_in_range(0..=12)?) } else { None },
                bound: bytes.int_in_range(0..=3)?,
            },
            208..224 => Op::UndoMadeUp(bytes.arbitrary()?),
            224..240 => Op::SetLimits { limits: limits(bytes)?, bound: bytes.int_in_range(0..=3)? },
            240..248 => Op::SetConcurrency(bytes.int_in_range(1..=4)?),
            _ => Op::Advance(1),
        },
    })
}
