//! Turns the arguments of `run` into its command template, its input format and its limiter.

use std::ffi::OsStr;
use std::path::Path;

use strict_rate_limiter::{Limit, RateLimiterBuilder, Unit};

use crate::args::RunArgs;
use crate::columns::{Column, HeaderLine};
use crate::error::Error;
use crate::items::Format;
use crate::record_reader::Terminator;
use crate::template::UnresolvedTemplate;

/// The command template and the input format. Rejects contradictory arguments before any file is opened.
pub(crate) fn command_and_input(args: &RunArgs) -> Result<(UnresolvedTemplate, Format), Error> {
    let named_tsv = args.input.as_deref().and_then(Path::extension) == Some(OsStr::new("tsv"));
    let weight = args.weight.as_deref().map(Column::parse);
    let delimiter = match (args.csv, args.tsv) {
        (true, _) => Some(b','),
        (_, true) => Some(b'\t'),
        _ => weight.as_ref().map(|_| if named_tsv { b'\t' } else { b',' }),
    };
    let draft =
        UnresolvedTemplate::new(&args.command, &args.replace, delimiter.is_some(), args.shell)
            .map_err(Error::Usage)?;
    if !draft.has_columns() {
        draft.template(None).map_err(Error::Usage)?; // Complains before anything is opened.
    }
    if args.header && delimiter.is_none() {
        return Err(Error::Usage("--header needs columns: --csv, --tsv or --weight".into()));
    }
    let named = weight.as_ref().is_some_and(Column::is_name);
    let header = if args.header || named { HeaderLine::Yes } else { draft.header() };
    if !args.limits.limits.is_empty() {
        check_weights(args, &args.limits.limits)?;
    }
    let terminator = match delimiter {
        Some(delimiter) => Terminator::Record { quotes: delimiter == b',' },
        None if args.null => Terminator::Nul,
        None => Terminator::Line { crlf: args.crlf },
    };
    Ok((draft, Format { terminator, delimiter, header, weight }))
}

/// Rejects --weight without a limit on weight, and a limit on weight without --weight.
pub(crate) fn check_weights(args: &RunArgs, limits: &[Limit]) -> Result<(), Error> {
    let on_weight = limits.iter().find(|limit| limit.unit() == Unit::Weight);
    match (on_weight, &args.weight) {
        (None, Some(_)) => {
            Err(Error::Usage("--weight needs a limit on weight, such as 90000w/1m".into()))
        }
        (Some(limit), None) => {
            let limit = limit.to_string();
            let of_tasks = limit.replacen('w', "", 1);
            Err(Error::Usage(format!(
                "the limit {limit} is on weight, and nothing says what an item weighs: --weight COLUMN names \
                 the column that does (in CSV or TSV). If each item counts as one, the limit is {of_tasks}"
            )))
        }
        _ => Ok(()),
    }
}

/// The limiter's settings, without the usage of earlier runs.
pub(crate) fn limiter(args: &RunArgs) -> RateLimiterBuilder {
    let grace = args.abandon_grace.unwrap_or_default();
    args.limits.builder().concurrency(args.concurrency.get()).abandon_grace(grace)
}
