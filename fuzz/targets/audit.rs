//! Compares the audit with its definition, and runs it on numbers of any size.

#![no_main]

#[path = "../../crates/core/tests/oracle/windows.rs"]
mod windows;

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use strict_rate_limiter_core::{Limit, Record, audit};

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let _ = if bytes.ratio(1, 4) == Ok(true) { any_size(&mut bytes) } else { by_hand(&mut bytes) };
});

fn limit(bytes: &mut Unstructured<'_>, rate: u64, per_ns: u64) -> Result<Limit> {
    let make = if bytes.arbitrary()? { Limit::tasks } else { Limit::weight };
    Ok(make(rate, Duration::from_nanos(per_ns)).expect("in range"))
}

fn by_hand(bytes: &mut Unstructured<'_>) -> Result<()> {
    let (rate, per_ns) = (bytes.int_in_range(1..=10)?, bytes.int_in_range(1..=50)?);
    let limit = limit(bytes, rate, per_ns)?;
    let mut records = vec![];
    while records.len() < 25 && !bytes.is_empty() {
        let start = bytes.int_in_range(0..=120)?;
        let end = start + bytes.int_in_range(0..=40)?;
        records.push(Record { start, end, weight: bytes.int_in_range(0..=5)? });
    }
    windows::assert_as_by_hand(&limit, &records);
    Ok(())
}

fn any_size(bytes: &mut Unstructured<'_>) -> Result<()> {
    let (rate, per_ns) = (bytes.int_in_range(1..=1 << 40)?, bytes.int_in_range(1..=1 << 58)?);
    let limit = limit(bytes, rate, per_ns)?;
    let mut records = vec![];
    while !bytes.is_empty() {
        let [start, end, weight] = bytes.arbitrary()?;
        records.push(Record { start, end, weight });
    }
    let ends_early = records.iter().position(|record| record.end < record.start);
    match audit::check(&limit, &records) {
        Ok(audit) => {
            assert_eq!(ends_early, None);
            assert!(audit.worst.units >= audit.starts.units.max(audit.ends.units));
        }
        Err(error) => assert_eq!(ends_early, Some(error.index)),
    }
    Ok(())
}
