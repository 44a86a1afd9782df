//! `ratelimit forget`: removes a shared limit, after saying what follows.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use strict_rate_limiter::Limit;
use strict_rate_limiter_shared::FolderError;
use strict_rate_limiter_shared::folder::{self, Inspection};

use super::args::ForgetArgs;
use super::{find, text};
use crate::display::counted;
use crate::error::{Error, exit};
use crate::stdio;

/// Asks, and removes it.
pub(crate) fn forget(args: &ForgetArgs) -> Result<u8, Error> {
    let folder = find(&args.shared)?;
    let follows = match folder::inspect(&folder) {
        Ok(seen) => follows(&folder, &seen),
        Err(
            error @ (FolderError::Damaged { .. }
            | FolderError::Newer { .. }
            | FolderError::NoLimits { .. }),
        ) => format!("{}: {error}\n", folder.display()),
        Err(error) => return Err(error.into()),
    };
    stdio::write_message(&follows);
    if !args.yes && !is_wanted(&args.shared)? {
        stdio::tell("nothing was changed");
        return Ok(exit::FAILURES);
    }
    folder::forget(&folder)?;
    stdio::tell(format_args!("{} is forgotten", folder.display()));
    Ok(0)
}

fn is_wanted(name: &str) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(format!(
            "nobody can be asked, as standard input is no terminal: `ratelimit forget --yes {name}` does not ask"
        )));
    }
    stdio::errors().write_all(b"Forget it? [y/N] ").map_err(Error::Messages)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Error::Answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// What the end of the limit loosens, and what it makes wait.
fn follows(folder: &Path, seen: &Inspection) -> String {
    let mut lines = vec![format!("{} has {}", folder.display(), text::settings(seen))];
    if !seen.holders.is_empty() {
        let runs = counted(seen.holders.len() as u64, "running task");
        lines.push(format!(
            "{runs} would no longer be counted; what starts next does not wait for:"
        ));
        lines.extend(text::holders(&seen.holders));
    }
    if !seen.waiters.is_empty() {
        lines.push(format!(
            "{} would end with an error:",
            counted(seen.waiters.len() as u64, "waiting task")
        ));
        lines.extend(text::waiters(&seen.waiters));
    }
    let longest = seen.config.limits.iter().map(Limit::per).max().unwrap_or_default();
    lines.push(format!(
        "the next use makes it anew; its limits count as used up then, and its first task waits up to {}",
        text::long(longest)
    ));
    lines.join("\n") + "\n"
}
