//! `ratelimit status`: shows a shared limit, once or again and again. Only reads.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::stdio::stdout;
use rustix::termios::tcgetwinsize;
use strict_rate_limiter_shared::folder::inspect;

use super::args::StatusArgs;
use super::{find, json, text};
use crate::error::Error;
use crate::stdio;

const REDRAW_EVERY: Duration = Duration::from_millis(500);
const PRINT_EVERY: Duration = Duration::from_secs(1);

/// The size of a terminal that does not report one.
const SIZE: (usize, usize) = (80, 24);

/// Shows it.
pub(crate) fn status(args: &StatusArgs) -> Result<u8, Error> {
    let folder = find(&args.shared)?;
    let is_redrawn = args.watch && !args.json && is_redrawn();
    let mut between = "";
    loop {
        let seen = if args.json {
            format!("{}\n", json::object(&folder, &inspect(&folder)?))
        } else if is_redrawn {
            screen(&folder)?
        } else {
            format!("{between}{}\n", text::all(&folder, &inspect(&folder)?).join("\n"))
        };
        stdio::output().write_all(seen.as_bytes()).map_err(Error::Output)?;
        if !args.watch {
            return Ok(0);
        }
        between = "\n";
        thread::sleep(if is_redrawn { REDRAW_EVERY } else { PRINT_EVERY });
    }
}

/// Whether the output is a terminal that can be drawn anew.
fn is_redrawn() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// What is shown, from the terminal's top left corner, cut to its size.
fn screen(folder: &Path) -> Result<String, Error> {
    let (columns, rows) = size();
    let lines = text::all(folder, &inspect(folder)?);
    let mut screen = "\x1b[H".to_owned();
    for line in lines.iter().take(rows - 1) {
        // Leave the last column free: writing to it wraps on some terminals.
        screen.extend(line.chars().take(columns - 1));
        screen.push_str("\x1b[K\n");
    }
    screen.push_str("\x1b[J");
    Ok(screen)
}

fn size() -> (usize, usize) {
    let said = tcgetwinsize(stdout());
    let said = said.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    said.ok().filter(|(columns, rows)| *columns > 1 && *rows > 1).unwrap_or(SIZE)
}
