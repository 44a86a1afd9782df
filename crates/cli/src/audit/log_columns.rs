//! Which columns of a log hold what, and what a row of them says.

use strict_rate_limiter::audit::{ErrorBounds, Record};

use super::decimal::Decimal;
use super::resolution::{
    Resolution, RowOrder, bounds, bounds_from_end, bounds_from_start, end_as_start, show_unit,
    start_as_end,
};
use super::times::{self, DurationUnit, ParsedTime};
use crate::args::AuditArgs;
use crate::nanos::nanos;

/// The columns that identify a log of `ratelimit run`. Its times are exact.
const OUR_START: &str = "start_ns";
const OUR_END: &str = "end_ns";

/// Those by which a log of GNU parallel is.
const PARALLELS: (&str, &str) = ("Starttime", "JobRuntime");

/// What nginx calls how long a request took. Its times are all when it ended.
const NGINX_DURATIONS: [&str; 2] = ["request_time", "upstream_response_time"];

/// The columns that hold when a task ran.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TimeColumns {
    /// Each task ended as it started.
    Start(String),
    StartAndEnd(String, String),
    StartAndDuration(String, String),
    EndAndDuration(String, String),
}

/// The columns that hold times and weights, and what the rows so far have shown of them.
#[derive(Debug)]
pub(crate) struct LogColumns {
    times: TimeColumns,
    weight: Option<String>,
    unit: Option<DurationUnit>,
    /// The log is one of `ratelimit run`.
    pub(crate) ours: bool,
    /// The resolution of the first and the second time column.
    first: Resolution,
    second: Resolution,
    order: RowOrder,
    longest_ns: u64,
    /// All durations so far were whole numbers without a unit.
    whole: bool,
}

/// The properties of a log that show only after its last row.
#[derive(Debug, Default)]
pub(crate) struct LogTraits {
    pub(crate) bounds: ErrorBounds,
    /// How exact the times are, for display; `None` if they are exact.
    pub(crate) exactness: Option<String>,
    pub(crate) ambiguity: Option<Ambiguity>,
    /// The longest duration, if all were whole numbers without a unit and were taken for seconds.
    pub(crate) whole_seconds_ns: Option<u64>,
}

/// Evidence that a column of start times really holds end times, or the reverse.
#[derive(Debug)]
pub(crate) struct Ambiguity {
    /// The evidence, and what the user can do.
    pub(crate) why: String,
    pub(crate) bounds: ErrorBounds,
    /// A record as it would be then.
    pub(crate) other: fn(&Record) -> Record,
}

impl LogColumns {
    /// Takes the columns from the arguments, else recognises those of known programs.
    pub(crate) fn find(
        args: &AuditArgs,
        has: impl Fn(&str) -> bool,
        all: &str,
    ) -> Result<Self, String> {
        let ours = args.start.is_none() && args.end.is_none() && has(OUR_START) && has(OUR_END);
        let own = |name: &str| name.to_owned();
        let times = match (&args.start, &args.end, &args.duration) {
            (Some(start), None, None) => TimeColumns::Start(start.clone()),
            (Some(start), Some(end), _) => TimeColumns::StartAndEnd(start.clone(), end.clone()),
            (Some(start), None, Some(took)) => {
                TimeColumns::StartAndDuration(start.clone(), took.clone())
            }
            (None, Some(end), Some(took)) => TimeColumns::EndAndDuration(end.clone(), took.clone()),
            _ if ours => TimeColumns::StartAndEnd(own(OUR_START), own(OUR_END)),
            _ if has(PARALLELS.0) && has(PARALLELS.1) => {
                TimeColumns::StartAndDuration(own(PARALLELS.0), own(PARALLELS.1))
            }
            _ => {
                return Err(format!(
                    "say with --start (or --end and --duration) which column holds the times; \
                     there are {all}"
                ));
            }
        };
        let weight =
            args.weight.clone().or_else(|| Some(own("weight")).filter(|name| ours && has(name)));
        let found = Self {
            times,
            weight,
            unit: args.duration_unit,
            ours,
            first: Resolution::default(),
            second: Resolution::default(),
            order: RowOrder::default(),
            longest_ns: 0,
            whole: true,
        };
        if let Some(missing) = found.names().find(|name| !has(name)) {
            return Err(format!("there is no column `{missing}`; there are {all}"));
        }
        Ok(found)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match &self.times {
            TimeColumns::Start(start) => (start, None),
            TimeColumns::StartAndEnd(first, second)
            | TimeColumns::StartAndDuration(first, second)
            | TimeColumns::EndAndDuration(first, second) => (first, Some(second)),
        };
        [Some(first), second, self.weight.as_ref()].into_iter().flatten().map(String::as_str)
    }

    /// What a row says. Where its times are coarse, its end may come out before its start.
    pub(crate) fn record(
        &mut self,
        field: impl Fn(&str) -> Option<String>,
    ) -> Result<Record, String> {
        let text = |name: &str| field(name).ok_or_else(|| format!("{name} is missing"));
        let instant = if self.ours { times::nanoseconds } else { times::instant };
        let time = |name: &str| {
            let text = text(name)?;
            instant(&text).map_err(|what| format!("{name} {what}: `{text}`"))
        };
        let whole = &mut self.whole;
        let mut took = |name: &str| {
            let text = text(name)?;
            *whole &= text.trim().bytes().all(|byte| byte.is_ascii_digit());
            times::duration(&text, self.unit).map_err(|what| format!("{name} {what}: `{text}`"))
        };
        let weight = match &self.weight {
            None => 1,
            Some(name) => {
                let text = text(name)?;
                let weight = Decimal::read(text.trim()).ok().and_then(|weight| weight.whole());
                weight.ok_or_else(|| format!("{name} is no whole number: `{text}`"))?
            }
        };
        let (start, end, parsed): (u64, u64, (ParsedTime, Option<ParsedTime>)) = match &self.times {
            TimeColumns::Start(start) => {
                let start = time(start)?;
                (start.ns, start.ns, (start, None))
            }
            TimeColumns::StartAndEnd(start, end) => {
                let (start, end) = (time(start)?, time(end)?);
                (start.ns, end.ns, (start, Some(end)))
            }
            TimeColumns::StartAndDuration(start, duration) => {
                let (start, took) = (time(start)?, took(duration)?);
                (start.ns, start.ns.saturating_add(took.ns), (start, Some(took)))
            }
            TimeColumns::EndAndDuration(end, duration) => {
                let (end, took) = (time(end)?, took(duration)?);
                (end.ns.saturating_sub(took.ns), end.ns, (end, Some(took)))
            }
        };
        let (first, second) = parsed;
        self.first.see(&first);
        if let Some(second) = second {
            self.second.see(&second);
            if !matches!(self.times, TimeColumns::StartAndEnd(..)) {
                self.order.see(&first, &second);
                self.longest_ns = self.longest_ns.max(second.ns);
            }
        }
        Ok(Record { start, end, weight })
    }

    /// The properties of the log, after its last row.
    pub(crate) fn traits(&self, args: &AuditArgs) -> LogTraits {
        let told_ns = args.resolution.map(nanos);
        if self.ours && told_ns.is_none() {
            return LogTraits::default();
        }
        let stamp_ns = |stamp: &Resolution| told_ns.unwrap_or_else(|| stamp.stamp_unit_ns());
        let first_ns = stamp_ns(&self.first);
        let first = self.first.stamp_error(first_ns);
        // A time that was only told to be coarse says nothing of the clock that measured durations.
        let took_ns = self.second.duration_unit_ns().min(told_ns.unwrap_or(u64::MAX));
        let took = self.second.duration_error(took_ns);
        let exact_to = |units: &[(&str, u64)]| {
            let coarse = units.iter().any(|(_, ns)| *ns > 1);
            let each = units.iter().map(|(what, ns)| format!("{what} exact to {}", show_unit(*ns)));
            coarse.then(|| each.collect::<Vec<_>>().join(", "))
        };
        match &self.times {
            TimeColumns::Start(_) => LogTraits {
                bounds: bounds(first, first),
                exactness: exact_to(&[("times", first_ns)]),
                ..LogTraits::default()
            },
            TimeColumns::StartAndEnd(..) => {
                let second_ns = stamp_ns(&self.second);
                let exactness = if first_ns == second_ns {
                    exact_to(&[("times", first_ns)])
                } else {
                    exact_to(&[("starts", first_ns), ("ends", second_ns)])
                };
                let bounds = bounds(first, self.second.stamp_error(second_ns));
                LogTraits { bounds, exactness, ..LogTraits::default() }
            }
            TimeColumns::StartAndDuration(start, duration) => {
                let nginx = NGINX_DURATIONS.contains(&duration.as_str());
                let speaks = if nginx {
                    Some(format!("`{duration}` is nginx's, whose times are when a request ended"))
                } else {
                    self.order.speaks_for_the_end().then(|| "the rows are in its order".to_owned())
                };
                let ambiguity = speaks.filter(|_| !args.as_told).map(|speaks| Ambiguity {
                    why: format!(
                        "`{start}` may be when each task ENDED ({speaks}): then say --end {start} \
                         --duration {duration}; if it is the start, say --as-told"
                    ),
                    bounds: bounds_from_end(first, took),
                    other: start_as_end,
                });
                LogTraits {
                    bounds: bounds_from_start(first, took),
                    exactness: exact_to(&[("times", first_ns), ("durations", took_ns)]),
                    ambiguity: ambiguity.filter(|_| args.start.is_some()),
                    whole_seconds_ns: self.whole_seconds_ns(),
                }
            }
            TimeColumns::EndAndDuration(end, duration) => {
                let speaks = if end.to_lowercase().contains("start") {
                    Some("by its name")
                } else {
                    self.order.speaks_for_the_start().then_some("the rows are in the order of both")
                };
                let ambiguity = speaks.filter(|_| !args.as_told).map(|speaks| Ambiguity {
                    why: format!(
                        "`{end}` may be when each task STARTED ({speaks}): then say --start {end} \
                         --duration {duration}; if it is the end, say --as-told"
                    ),
                    bounds: bounds_from_start(first, took),
                    other: end_as_start,
                });
                LogTraits {
                    bounds: bounds_from_end(first, took),
                    exactness: exact_to(&[("times", first_ns), ("durations", took_ns)]),
                    ambiguity,
                    whole_seconds_ns: self.whole_seconds_ns(),
                }
            }
        }
    }

    fn whole_seconds_ns(&self) -> Option<u64> {
        (self.unit.is_none() && self.whole).then_some(self.longest_ns)
    }
}
