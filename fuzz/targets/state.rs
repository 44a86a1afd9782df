//! Restores a state from any numbers: gives an error or a working machine, never a panic and never a burst.

#![no_main]

#[path = "../../crates/core/tests/oracle/restored.rs"]
mod restored;

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use strict_rate_limiter_core::{
    Config, Limit, Machine, OwnersState, PermitState, STATE_VERSION, State, WindowState, raw,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(state) = State::from_bytes(bytes) {
        restored::grants_stay_within_the_law(&state);
    }
    let mut bytes = Unstructured::new(bytes);
    let Ok(state) = state(&mut bytes) else { return };
    restored::grants_stay_within_the_law(&state);
    if let Ok(machine) = Machine::restore(&state, raw::ticket_number) {
        let again = machine.state();
        let mut written = Vec::new();
        again.write_to(&mut written);
        assert_eq!(State::from_bytes(&written).as_ref(), Ok(&again));
        let machine = Machine::restore(&again, raw::ticket_number).expect("a state it was in");
        assert_eq!(machine.state(), again);
    }
});

/// Mostly small numbers, so that many states are consistent.
fn number(bytes: &mut Unstructured<'_>) -> Result<u64> {
    match bytes.arbitrary::<u8>()? {
        255 => bytes.arbitrary(),
        254 => Ok(u64::MAX - u64::from(bytes.arbitrary::<u8>()?)),
        small => Ok(u64::from(small) / 6),
    }
}

fn pairs(bytes: &mut Unstructured<'_>) -> Result<Vec<(u64, u64)>> {
    let many = bytes.int_in_range(0..=5)?;
    (0..many).map(|_| Ok((number(bytes)?, number(bytes)?))).collect()
}

fn owners(bytes: &mut Unstructured<'_>) -> Result<OwnersState> {
    let permits = (0..bytes.int_in_range(0..=4)?).map(|_| {
        let (ticket, session) = (number(bytes)?, number(bytes)?);
        Ok(PermitState { ticket, session, weight: number(bytes)?, granted_at: number(bytes)? })
    });
    let permits = permits.collect::<Result<_>>()?;
    let (next_session, waiters) = (number(bytes)?, pairs(bytes)?);
    let told = if bytes.arbitrary()? { Some((number(bytes)?, number(bytes)?)) } else { None };
    Ok(OwnersState { next_session, waiters, permits, told })
}

fn state(bytes: &mut Unstructured<'_>) -> Result<State> {
    let mut limits = vec![];
    for _ in 0..bytes.int_in_range(0..=2)? {
        let make = if bytes.arbitrary()? { Limit::tasks } else { Limit::weight };
        let rate = bytes.int_in_range(1..=20)?;
        limits.extend(make(rate, Duration::from_nanos(number(bytes)?)));
    }
    let config = Config {
        paced: bytes.ratio(1, 8)?,
        concurrency: bytes.int_in_range(0..=6)?,
        queue_capacity: number(bytes)? as usize,
        abandon_grace_ns: number(bytes)?,
        clock_drift_ppm: number(bytes)? as u32,
        ..Config::new(limits)
    };
    let windows = config.limits.len() + usize::from(config.paced);
    let windows = if bytes.ratio(1, 32)? { windows + 1 } else { windows };
    let windows = (0..windows)
        .map(|_| {
            let completions = pairs(bytes)?;
            Ok(WindowState { completions, expired: number(bytes)?, unbounded: number(bytes)? })
        })
        .collect::<Result<_>>()?;
    Ok(State {
        version: STATE_VERSION,
        config,
        windows,
        queue: pairs(bytes)?,
        unclaimed: pairs(bytes)?,
        abandoned: pairs(bytes)?,
        running: bytes.int_in_range(0..=6)?,
        running_weight: number(bytes)?.into(),
        completed: number(bytes)?,
        next_ticket: number(bytes)?,
        now: number(bytes)?,
        last_end: number(bytes)?,
        paused_until: number(bytes)?,
        closed: bytes.arbitrary()?,
        owners: if bytes.ratio(1, 2)? { Some(owners(bytes)?) } else { None },
    })
}
