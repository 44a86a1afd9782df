//! Reads records from logs: those of `ratelimit run` and GNU parallel, any CSV or TSV, and lines of JSON.

use std::collections::HashMap;
use std::io::BufRead;

use csv::ByteRecord;
use serde_json::Value;
use strict_rate_limiter::audit::Record;

use super::log_columns::{LogColumns, LogTraits};
use crate::args::AuditArgs;
use crate::tail_reader::TailReader;

/// The contents of a log.
#[derive(Debug, Default)]
pub(crate) struct LogContents {
    /// The records as written. If times are coarse, one may end before it starts.
    pub(crate) records: Vec<Record>,
    /// The last line is incomplete, and was left out.
    pub(crate) torn: bool,
    pub(crate) traits: LogTraits,
}

/// Reads a log. Errors name the line.
pub(crate) fn read(mut log: impl BufRead, args: &AuditArgs) -> Result<LogContents, String> {
    let begin = log.fill_buf().map_err(|error| error.to_string())?;
    let first = begin.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        None => Err("it is empty".into()),
        Some(b'{') => json(log, args),
        Some(_) => columns(log, args),
    }
}

/// The records so far. A record that ends before it starts may be wrong or only coarse; that is decided at the end,
/// when the resolution of the log is known.
#[derive(Debug, Default)]
struct RecordList {
    records: Vec<Record>,
    /// (by how much a row ends before it starts, its line): the worst before the last row, and the last row.
    worst: (u64, u64),
    last: (u64, u64),
}

impl RecordList {
    fn push(&mut self, record: Record, line: u64) {
        self.worst = self.worst.max(self.last);
        self.last = (record.start.saturating_sub(record.end), line);
        self.records.push(record);
    }

    /// `ended`: the log ends with a line end.
    fn finish(
        mut self,
        traits: LogTraits,
        ended: bool,
        mut torn: bool,
    ) -> Result<LogContents, String> {
        let explained = traits.bounds.start_early_ns.saturating_add(traits.bounds.end_late_ns);
        if self.last.0 > explained && !ended {
            self.records.pop();
            torn = true;
        } else {
            self.worst = self.worst.max(self.last);
        }
        match self.worst {
            (by, line) if by > explained => Err(format!("line {line}: it ends before it starts")),
            _ => Ok(LogContents { records: self.records, torn, traits }),
        }
    }
}

fn columns(mut log: impl BufRead, args: &AuditArgs) -> Result<LogContents, String> {
    let begin = log.fill_buf().map_err(|error| error.to_string())?;
    let header = begin.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let delimiter = if header.contains(&b'\t') { b'\t' } else { b',' };
    let mut reader = csv::ReaderBuilder::new();
    // Parallel quotes nothing in its log: a quote there is a character of the command.
    reader.delimiter(delimiter).quoting(delimiter == b',').flexible(true);
    let mut reader = reader.from_reader(TailReader::new(log));
    let header = reader.byte_headers().map_err(|error| error.to_string())?;
    let names: Vec<String> =
        header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
    let places: HashMap<&str, usize> =
        names.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    let mut columns = LogColumns::find(args, |name| places.contains_key(name), &names.join(", "))?;
    let mut rows = RecordList::default();
    let mut torn = false;
    let mut row = ByteRecord::new();
    while reader.read_byte_record(&mut row).map_err(|error| error.to_string())? {
        let field = |name: &str| {
            row.get(places[name]).map(|field| String::from_utf8_lossy(field).into_owned())
        };
        let line = row.position().map_or(0, csv::Position::line);
        match columns.record(field) {
            Ok(record) => rows.push(record, line),
            Err(what) => {
                let rest = reader.read_byte_record(&mut ByteRecord::new());
                if matches!(rest, Ok(false)) && !reader.get_ref().ends_line() {
                    torn = true;
                    break;
                }
                return Err(format!("line {line}: {what}"));
            }
        }
    }
    let ended = reader.get_ref().ends_line();
    // Our rows end with their line: one that does not is still being written, whatever it says so far.
    if columns.ours && !torn && !ended {
        torn = rows.records.pop().is_some();
        rows.last = (0, 0);
    }
    rows.finish(columns.traits(args), ended || torn, torn)
}

fn json(mut log: impl BufRead, args: &AuditArgs) -> Result<LogContents, String> {
    let mut rows = RecordList::default();
    let mut found = None;
    let mut line = Vec::new();
    let mut ended = true;
    for number in 1_u64.. {
        line.clear();
        if log.read_until(b'\n', &mut line).map_err(|error| error.to_string())? == 0 {
            break;
        }
        ended = line.ends_with(b"\n");
        if line.trim_ascii().is_empty() {
            continue;
        }
        let record = json_record(&line, args, &mut found);
        match record {
            Ok(record) => rows.push(record, number),
            Err(_) if !ended && found.is_some() => {
                return rows.finish(
                    found.map_or_else(LogTraits::default, |it| it.traits(args)),
                    true,
                    true,
                );
            }
            Err(what) => return Err(format!("line {number}: {what}")),
        }
    }
    rows.finish(found.map_or_else(LogTraits::default, |it| it.traits(args)), ended, false)
}

fn json_record(
    line: &[u8],
    args: &AuditArgs,
    found: &mut Option<LogColumns>,
) -> Result<Record, String> {
    let object: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let field = |name: &str| object.get(name).filter(|value| !value.is_null());
    let columns = match found {
        Some(columns) => columns,
        None => {
            let names = object.as_object().into_iter().flat_map(serde_json::Map::keys);
            let all = names.cloned().collect::<Vec<_>>().join(", ");
            found.insert(LogColumns::find(args, |name| field(name).is_some(), &all)?)
        }
    };
    columns.record(|name| {
        field(name).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    fn read_with(log: &str, arguments: &[&str]) -> Result<LogContents, String> {
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
        assert_eq!(
            read.traits.exactness.as_deref(),
            Some("times exact to 1ms, durations exact to 1ms")
        );
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
            (
                "a,b\n1,2\n",
                "say with --start (or --end and --duration) which column holds the times; there are a, b",
            ),
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
