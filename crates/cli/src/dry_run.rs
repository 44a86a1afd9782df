//! `ratelimit run --dry-run`: the commands are shown, and none is run.

use std::io::{self, Write};

use crate::args::RunArgs;
use crate::error::{Error, exit};
use crate::items::{self, Format, Found};
use crate::past::Past;
use crate::plan;
use crate::resume::Source;
use crate::streams;
use crate::template::{Draft, display};

/// Shows what would be run.
pub(crate) async fn show(args: &RunArgs, draft: &Draft, format: Format) -> Result<u8, Error> {
    plan::limiter(args).build()?;
    let (items, _) = items::read(args.input.as_deref(), format)?;
    let mut source = Source::new(items);
    let template = source.template(draft).await?;
    let mut out = io::BufWriter::new(streams::output());
    let mut code = 0;
    while let Some(found) = source.next(&mut Past::default()).await {
        let line = match found {
            Found::Item(item) => template.fill(&item).map_err(|what| (item.line, what)),
            Found::Malformed { line, what } => Err((line, what)),
            Found::Notice(what) => {
                streams::tell(what);
                continue;
            }
            Found::Columns(_) => continue,
            Found::Stop(error) => return Err(error),
        };
        match line {
            Ok(command) => writeln!(out, "{}", display(&command)).map_err(Error::Output)?,
            Err((line, what)) => {
                streams::tell(format_args!("line {line}: {what}"));
                code = exit::FAILURES;
            }
        }
    }
    out.flush().map_err(Error::Output)?;
    Ok(code)
}
