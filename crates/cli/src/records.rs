//! Records of what ran, from logs of any program: ours, parallel's, columns, lines of JSON.

use std::collections::HashMap;
use std::io::{BufRead, Read};

use csv::ByteRecord;
use serde_json::Value;
use strict_rate_limiter::audit::Record;

use crate::args::AuditArgs;
use crate::times;

/// Which columns hold what. Without an end or a duration, a task ended as it started.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Columns {
    start: String,
    end: Option<String>,
    duration: Option<String>,
    weight: Option<String>,
}

/// The column by which a log of our own is known.
const OUR_START: &str = "start_ns";

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) records: Vec<Record>,
    /// The last line was being written, and is left out.
    pub(crate) torn: bool,
}

/// Reads a log. What is wrong, with its line.
pub(crate) fn read(mut log: impl BufRead, args: &AuditArgs) -> Result<Records, String> {
    let begin = log.fill_buf().map_err(|error| error.to_string())?;
    let first = begin.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        None => Err("it is empty".into()),
        Some(b'{') => json(log, args),
        Some(_) => columns(log, args),
    }
}

impl Columns {
    /// As told; else as the program that wrote these columns has them.
    fn find(args: &AuditArgs, has: impl Fn(&str) -> bool, all: &str) -> Result<Self, String> {
        let known = [(OUR_START, Some("end_ns"), None), ("Starttime", None, Some("JobRuntime"))];
        let known = known.iter().find(|(start, end, duration)| {
            has(start) && end.is_none_or(&has) && duration.is_none_or(&has)
        });
        let own = |text: &&str| (*text).to_owned();
        let found = match (&args.start, known) {
            (Some(start), _) => Self {
                start: start.clone(),
                end: args.end.clone(),
                duration: args.duration.clone(),
                weight: args.weight.clone(),
            },
            (None, Some((start, end, duration))) => Self {
                start: own(start),
                end: end.as_ref().map(own),
                duration: duration.as_ref().map(own),
                weight: args.weight.clone().or_else(|| {
                    has(OUR_START).then(|| "weight".to_owned()).filter(|weight| has(weight))
                }),
            },
            (None, None) => {
                return Err(format!(
                    "say with --start which column holds the times; there are {all}"
                ));
            }
        };
        if let Some(missing) = found.names().find(|name| !has(name)) {
            return Err(format!("there is no column `{missing}`; there are {all}"));
        }
        Ok(found)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        [Some(&self.start), self.end.as_ref(), self.duration.as_ref(), self.weight.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    fn record(&self, field: impl Fn(&str) -> Option<String>) -> Result<Record, String> {
        let read = |name: &str, parse: fn(&str) -> Option<u64>, what: &str| {
            let text = field(name).ok_or_else(|| format!("{name} is missing"))?;
            parse(&text).ok_or_else(|| format!("{name} is no {what}: `{text}`"))
        };
        let start = read(&self.start, times::instant, "time")?;
        let end = match (&self.end, &self.duration) {
            (Some(end), _) => read(end, times::instant, "time")?,
            (None, Some(duration)) => {
                start.saturating_add(read(duration, times::duration, "duration")?)
            }
            (None, None) => start,
        };
        let whole = |text: &str| text.trim().parse().ok();
        let weight = self.weight.as_ref().map(|name| read(name, whole, "whole number"));
        if end < start {
            return Err("it ends before it starts".into());
        }
        Ok(Record { start, end, weight: weight.transpose()?.unwrap_or(1) })
    }
}

/// Whether what was read ended in the middle of a line.
struct Tail<R> {
    input: R,
    last: u8,
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.input.read(buffer)?;
        if let Some(last) = buffer[..length].last() {
            self.last = *last;
        }
        Ok(length)
    }
}

fn columns(mut log: impl BufRead, args: &AuditArgs) -> Result<Records, String> {
    let begin = log.fill_buf().map_err(|error| error.to_string())?;
    let header = begin.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let delimiter = if header.contains(&b'\t') { b'\t' } else { b',' };
    let mut reader = csv::ReaderBuilder::new();
    // Parallel quotes nothing in its log: a quote there is a character of the command.
    reader.delimiter(delimiter).quoting(delimiter == b',').flexible(true);
    let mut reader = reader.from_reader(Tail { input: log, last: b'\n' });
    let header = reader.byte_headers().map_err(|error| error.to_string())?;
    let names: Vec<String> =
        header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
    let places: HashMap<&str, usize> =
        names.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    let columns = Columns::find(args, |name| places.contains_key(name), &names.join(", "))?;
    let mut records = Records::default();
    let mut row = ByteRecord::new();
    while reader.read_byte_record(&mut row).map_err(|error| error.to_string())? {
        let field = |name: &str| {
            row.get(places[name]).map(|field| String::from_utf8_lossy(field).into_owned())
        };
        match columns.record(field) {
            Ok(record) => records.records.push(record),
            Err(what) => {
                let line = row.position().map_or(0, csv::Position::line);
                let rest = reader.read_byte_record(&mut ByteRecord::new());
                if matches!(rest, Ok(false)) && reader.get_ref().last != b'\n' {
                    records.torn = true;
                    break;
                }
                return Err(format!("line {line}: {what}"));
            }
        }
    }
    // Our rows end with their line: one that does not is still being written, whatever it says so far.
    let ours = columns.start == OUR_START;
    if ours && !records.torn && reader.get_ref().last != b'\n' {
        records.torn = records.records.pop().is_some();
    }
    Ok(records)
}

fn json(log: impl BufRead, args: &AuditArgs) -> Result<Records, String> {
    let mut records = Records::default();
    let mut columns = None;
    let mut lines = log.split(b'\n').zip(1_u64..).peekable();
    while let Some((line, number)) = lines.next() {
        let line = line.map_err(|error| error.to_string())?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let read = |columns: &mut Option<Columns>| {
            let object: Value = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
            let field = |name: &str| object.get(name).filter(|value| !value.is_null());
            if columns.is_none() {
                let names = object.as_object().into_iter().flat_map(serde_json::Map::keys);
                let all = names.cloned().collect::<Vec<_>>().join(", ");
                *columns = Some(Columns::find(args, |name| field(name).is_some(), &all)?);
            }
            let columns = columns.as_ref().ok_or("there are no columns")?;
            columns.record(|name| {
                field(name).map(|value| match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                })
            })
        };
        match read(&mut columns) {
            Ok(record) => records.records.push(record),
            Err(_) if lines.peek().is_none() && columns.is_some() => records.torn = true,
            Err(what) => return Err(format!("line {number}: {what}")),
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    fn read_with(log: &str, arguments: &[&str]) -> Result<Records, String> {
        let said = [&["ratelimit", "audit", "log", "1/1s"], arguments].concat();
        let Command::Audit(args) = Args::parse_from(said).command else { unreachable!() };
        read(log.as_bytes(), &args)
    }

    fn record(start: u64, end: u64, weight: u64) -> Record {
        Record { start, end, weight }
    }

    #[test]
    fn our_log_and_parallels_need_no_telling() {
        let ours = "seq,start_ns,end_ns,weight,exit_code,input\n\
            1,1785000000000000000,1785000000000000007,5,0,\"a,\nb\"\n";
        let read = read_with(ours, &[]).unwrap();
        assert_eq!(read.records, [record(1_785_000_000_000_000_000, 1_785_000_000_000_000_007, 5)]);

        let parallels = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n\
            1\t:\t1785000000.123\t     0.250\t0\t4\t0\t0\techo \"a\n";
        let read = read_with(parallels, &[]).unwrap();
        assert_eq!(read.records, [record(1_785_000_000_123_000_000, 1_785_000_000_373_000_000, 1)]);
    }

    #[test]
    fn any_columns_and_lines_of_json_are_read_as_told() {
        let csv = "who,at,took,cost\nme,2026-07-25T17:20:00Z,12ms,7\n";
        let columns = ["--start", "at", "--duration", "took", "--weight", "cost"];
        let at = 1_785_000_000_000_000_000;
        assert_eq!(read_with(csv, &columns).unwrap().records, [record(at, at + 12_000_000, 7)]);
        let json = "\n{\"at\":1785000000,\"took\":0.012,\"cost\":7}\n\n";
        assert_eq!(read_with(json, &columns).unwrap().records, [record(at, at + 12_000_000, 7)]);
        assert_eq!(read_with(csv, &["--start", "at"]).unwrap().records, [record(at, at, 1)]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_a_torn_last_line_is_left_out() {
        let cases = [
            ("", "it is empty"),
            ("a,b\n1,2\n", "say with --start which column holds the times; there are a, b"),
            ("start_ns,end_ns\n1,2\n3,x\n5,6\n", "line 3: end_ns is no time: `x`"),
            ("start_ns,end_ns\n1,2\n3\n5,6\n", "line 3: end_ns is missing"),
            ("start_ns,end_ns\n9,2\n", "line 2: it ends before it starts"),
            (
                "{\"start_ns\":1,\"end_ns\":2}\n{}\n{\"start_ns\":1,\"end_ns\":2}\n",
                "line 2: start_ns is missing",
            ),
            ("{\"at\":1}\n", "line 1: say with --start"),
        ];
        for (log, words) in cases {
            let error = read_with(log, &[]).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
        let error = read_with("at\n1\n", &["--start", "then"]).unwrap_err();
        assert_eq!(error, "there is no column `then`; there are at");
        for torn in [
            "start_ns,end_ns\n1,2\n3",
            "start_ns,end_ns\n1,2\n3,",
            "start_ns,end_ns,weight\n1,2,15\n3,4,1",
            "{\"start_ns\":1,\"end_ns\":2}\n{\"sta",
        ] {
            let read = read_with(torn, &[]).unwrap();
            assert_eq!((read.records.len(), read.torn), (1, true), "{torn}");
        }
    }
}
