//! How exact a log's times are, and whether a column of end times really holds start times, or the reverse.
//! Only all rows together show either.

use strict_rate_limiter::audit::{ErrorBounds, Record};

use super::times::ParsedTime;

const SECOND_NS: u64 = 1_000_000_000;

/// Trailing zeros mean a coarse clock if exact times would end so with a chance below ten to minus this.
const CHANCE: u32 = 6;

/// The resolution of the times in one column.
#[derive(Debug, Default)]
pub(crate) struct Resolution {
    /// The value of the last digit of the finest time; 0 before the first.
    unit_ns: u64,
    /// Some were written as decimal fractions, as floating point numbers are printed.
    fraction: bool,
    /// Some had more digits than nanoseconds, which we cut off.
    more: bool,
    /// All are multiples of ten to this many nanoseconds: 9, 6, 3 or 0.
    zeros: u32,
    /// The number of rows whose time differs from the row before.
    changes: u32,
    last: Option<u64>,
}

/// How far the times of a column may be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TimeError {
    pub(crate) early_ns: u64,
    pub(crate) late_ns: u64,
}

impl Resolution {
    pub(crate) fn see(&mut self, read: &ParsedTime) {
        self.unit_ns = match self.unit_ns {
            0 => read.unit_ns,
            finest => finest.min(read.unit_ns),
        };
        self.fraction |= read.fraction;
        self.more |= read.more;
        if self.last.is_none() {
            self.zeros = 9;
        }
        while !read.ns.is_multiple_of(10_u64.pow(self.zeros)) {
            self.zeros -= 3;
        }
        if self.last != Some(read.ns) {
            self.changes = self.changes.saturating_add(1);
            self.last = Some(read.ns);
        }
    }

    /// The resolution of time stamps. Times written to the millisecond may come from a clock that counts seconds;
    /// then all of them end in zeros.
    pub(crate) fn stamp_unit_ns(&self) -> u64 {
        let written = self.duration_unit_ns();
        let multiple = 10_u64.pow(self.zeros);
        let chance = (multiple / written).checked_ilog10().unwrap_or(0) * self.changes.min(CHANCE);
        if chance >= CHANCE { multiple } else { written }
    }

    /// The resolution of durations. Trailing zeros do not count here, since durations of zero are common.
    pub(crate) fn duration_unit_ns(&self) -> u64 {
        // Seven decimals of a second come from a printed floating point number, which is less exact.
        let floating_point = self.fraction && self.unit_ns == 100;
        if floating_point { 1_000 } else { self.unit_ns.max(1) }
    }

    /// The error of time stamps in this unit. All programs cut off whole seconds; finer times may have been rounded,
    /// by `printf` or before it.
    pub(crate) fn stamp_error(&self, unit_ns: u64) -> TimeError {
        let early_ns = if unit_ns < SECOND_NS { unit_ns / 2 } else { 0 };
        TimeError { early_ns, ..self.duration_error(unit_ns) }
    }

    /// The error of durations in this unit, cut off or rounded.
    pub(crate) fn duration_error(&self, unit_ns: u64) -> TimeError {
        TimeError { early_ns: unit_ns / 2, late_ns: unit_ns - 1 + u64::from(self.more) }
    }
}

impl TimeError {
    /// The sum of two errors.
    fn plus(self, early_ns: u64, late_ns: u64) -> Self {
        Self { early_ns: self.early_ns + early_ns, late_ns: self.late_ns + late_ns }
    }
}

/// The error bounds of records, from the errors of their starts and ends.
pub(crate) fn bounds(start: TimeError, end: TimeError) -> ErrorBounds {
    ErrorBounds {
        start_early_ns: start.early_ns,
        start_late_ns: start.late_ns,
        end_early_ns: end.early_ns,
        end_late_ns: end.late_ns,
    }
}

/// The error bounds of records whose end is the start plus a duration.
pub(crate) fn bounds_from_start(start: TimeError, duration: TimeError) -> ErrorBounds {
    bounds(start, start.plus(duration.early_ns, duration.late_ns))
}

/// The error bounds of records whose start is the end minus a duration.
pub(crate) fn bounds_from_end(end: TimeError, duration: TimeError) -> ErrorBounds {
    bounds(end.plus(duration.late_ns, duration.early_ns), end)
}

/// Counts how the rows of a log with times and durations are ordered.
///
/// Programs write a row when its task ends. So ends rise from row to row. If the times are starts, the sums of time
/// and duration rise instead.
#[derive(Debug, Default)]
pub(crate) struct RowOrder {
    last: Option<(u64, u64)>,
    /// The number of rows whose time is before that of the last row.
    time_back: u64,
    /// The same for the sum of time and duration.
    sum_back: u64,
}

impl RowOrder {
    pub(crate) fn see(&mut self, time: &ParsedTime, duration: &ParsedTime) {
        let sum = time.ns.saturating_add(duration.ns);
        if let Some((last_time, last_sum)) = self.last {
            let unit_ns = time.unit_ns.saturating_add(duration.unit_ns);
            self.time_back += u64::from(last_time.saturating_sub(time.ns) > 0);
            self.sum_back += u64::from(last_sum.saturating_sub(sum) > unit_ns);
        }
        self.last = Some((time.ns, sum));
    }

    pub(crate) fn speaks_for_the_end(&self) -> bool {
        self.sum_back > 10 * self.time_back
    }

    pub(crate) fn speaks_for_the_start(&self) -> bool {
        self.time_back > 10 * self.sum_back
    }
}

/// The record, if its start is really its end.
pub(crate) fn start_as_end(record: &Record) -> Record {
    let took = record.end.saturating_sub(record.start);
    Record { start: record.start.saturating_sub(took), end: record.start, ..*record }
}

/// The record, if its end is really its start.
pub(crate) fn end_as_start(record: &Record) -> Record {
    let took = record.end.saturating_sub(record.start);
    Record { start: record.end, end: record.end.saturating_add(took), ..*record }
}

/// A unit, for display: 1s, 100ms.
pub(crate) fn show_unit(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}us", ns / 1_000),
        1_000_000..SECOND_NS => format!("{}ms", ns / 1_000_000),
        _ => format!("{}s", ns / SECOND_NS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::times::{duration, instant};

    fn of(times: &[&str]) -> Resolution {
        let mut resolution = Resolution::default();
        for time in times {
            resolution.see(&instant(time).unwrap());
        }
        resolution
    }

    #[test]
    fn a_column_is_as_exact_as_the_finest_in_it() {
        // JSON numbers lose trailing zeros.
        assert_eq!(
            of(&["1785000000.5", "1785000001.25", "1785000002"]).stamp_unit_ns(),
            10_000_000
        );
        assert_eq!(
            of(&["2026-07-25T17:20:00Z", "2026-07-25T17:20:01Z"]).stamp_unit_ns(),
            SECOND_NS
        );
        assert_eq!(of(&["1785000000123"]).stamp_unit_ns(), 1_000_000);
        assert_eq!(of(&["1785000000123456789"]).stamp_unit_ns(), 1);
        assert_eq!(of(&["1785000000.1234567"]).stamp_unit_ns(), 1_000, "a floating point number");
        assert_eq!(of(&["2026-07-25T17:20:00.1234567Z"]).stamp_unit_ns(), 100, "digits of a clock");
    }

    #[test]
    fn zeros_that_cannot_be_chance_are_no_digits() {
        let seconds = ["1785000000000", "1785000003000"];
        assert_eq!(of(&seconds).stamp_unit_ns(), SECOND_NS);
        assert_eq!(
            of(&["1785000000000000000"]).stamp_unit_ns(),
            SECOND_NS,
            "nine zeros are enough"
        );
        // One time, or the same twice, may end in zeros by chance.
        assert_eq!(of(&["1785000000000"]).stamp_unit_ns(), 1_000_000);
        assert_eq!(of(&["1785000000000"; 9]).stamp_unit_ns(), 1_000_000);
        assert_eq!(
            of(&["1785000000.100", "1785000000.200", "1785000000.900"]).stamp_unit_ns(),
            1_000_000
        );
        let mut durations = Resolution::default();
        for _ in 0..99 {
            durations.see(&duration("0.000", None).unwrap());
        }
        assert_eq!(durations.duration_unit_ns(), 1_000_000);
    }

    #[test]
    fn whole_seconds_were_cut_off_and_what_is_finer_may_have_been_rounded() {
        let (ms, s) = (1_000_000, SECOND_NS);
        let error = |early_ns, late_ns| TimeError { early_ns, late_ns };
        assert_eq!(of(&["1785000000.123"]).stamp_error(ms), error(ms / 2, ms - 1));
        assert_eq!(of(&["2026-07-25T17:20:00Z"]).stamp_error(s), error(0, s - 1));
        assert_eq!(of(&["1785000000123456789"]).stamp_error(1), error(0, 0));
        assert_eq!(of(&["1785000000.1234567891"]).stamp_error(1), error(0, 1), "a little later");
        assert_eq!(of(&["1785000000"]).duration_error(s), error(s / 2, s - 1));
    }

    #[test]
    fn a_start_from_an_end_is_as_inexact_as_both() {
        let (time, took) =
            (TimeError { early_ns: 1, late_ns: 20 }, TimeError { early_ns: 300, late_ns: 4_000 });
        let end = bounds_from_end(time, took);
        assert_eq!((end.start_early_ns, end.start_late_ns), (4_001, 320));
        assert_eq!((end.end_early_ns, end.end_late_ns), (1, 20));
        let start = bounds_from_start(time, took);
        assert_eq!((start.start_early_ns, start.start_late_ns), (1, 20));
        assert_eq!((start.end_early_ns, start.end_late_ns), (301, 4_020));
    }

    #[test]
    fn rows_in_the_order_of_one_moment_say_which_it_is() {
        let order = |rows: &[(&str, &str)]| {
            let mut order = RowOrder::default();
            for (time, took) in rows {
                order.see(&instant(time).unwrap(), &duration(took, None).unwrap());
            }
            (order.speaks_for_the_end(), order.speaks_for_the_start())
        };
        assert_eq!(order(&[("10.000", "5.000"), ("11.000", "0.500")]), (true, false));
        assert_eq!(order(&[("11.000", "0.500"), ("10.000", "5.000")]), (false, true));
        assert_eq!(
            order(&[("10.000", "0.500"), ("11.000", "0.500")]),
            (false, false),
            "one by one"
        );
        assert_eq!(order(&[("10", "0.9"), ("10", "0.1")]), (false, false), "too coarse to tell");
        assert_eq!(order(&[("12.000", "1.000"), ("10.000", "0.500")]), (false, false), "no order");
    }

    #[test]
    fn the_other_reading_moves_a_record_by_its_length() {
        let record = Record { start: 50, end: 80, weight: 3 };
        assert_eq!(start_as_end(&record), Record { start: 20, end: 50, weight: 3 });
        assert_eq!(end_as_start(&record), Record { start: 80, end: 110, weight: 3 });
    }
}
