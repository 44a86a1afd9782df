//! `ratelimit run --dry-run`: prints the commands and runs none.

use std::io::{self, Write};

use crate::args::RunArgs;
use crate::config;
use crate::error::{Error, exit};
use crate::history::History;
use crate::items::{self, Format, InputEvent};
use crate::resume::ItemSource;
use crate::stdio;
use crate::template::{UnresolvedTemplate, display};

/// Prints the commands that a run would start.
pub(crate) async fn show(
    args: &RunArgs,
    draft: &UnresolvedTemplate,
    format: Format,
) -> Result<u8, Error> {
    // Those of a shared limit are not looked at.
    if !args.limits.limits.is_empty() {
        config::limiter(args).build()?;
    }
    let (items, _) = items::read(args.input.as_deref(), format)?;
    let mut source = ItemSource::new(items);
    let template = source.template(draft).await?;
    let mut out = io::BufWriter::new(stdio::output());
    let mut code = 0;
    while let Some(found) = source.next(&mut History::default()).await {
        let line = match found {
            InputEvent::Item(item) => template.fill(&item).map_err(|what| (item.line, what)),
            InputEvent::Malformed { line, what } => Err((line, what)),
            InputEvent::Notice(what) => {
                stdio::tell(what);
                continue;
            }
            InputEvent::Columns(_) => continue,
            InputEvent::Stop(error) => return Err(error),
        };
        match line {
            Ok(command) => writeln!(out, "{}", display(&command)).map_err(Error::Output)?,
            Err((line, what)) => {
                stdio::tell(format_args!("line {line}: {what}"));
                code = exit::FAILURES;
            }
        }
    }
    out.flush().map_err(Error::Output)?;
    Ok(code)
}
