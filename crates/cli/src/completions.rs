//! Generates shell completions and man pages from the argument definitions.

use std::io::Write;
use std::path::Path;
use std::{fs, iter};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Args;
use crate::error::Error;
use crate::stdio;

/// Prints the completions for a shell.
pub(crate) fn completions(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "ratelimit", &mut script);
    stdio::output().write_all(&script).map_err(Error::Output)
}

/// Writes the man pages into a folder: one for the command and one for each subcommand.
pub(crate) fn manual(folder: &Path) -> Result<(), Error> {
    let write = || {
        fs::create_dir_all(folder)?;
        for page in pages() {
            let mut text = Vec::new();
            let name = page.get_display_name().unwrap_or_else(|| page.get_name()).to_owned();
            Man::new(page).render(&mut text)?;
            fs::write(folder.join(format!("{name}.1")), text)?;
        }
        Ok(())
    };
    write().map_err(|error| Error::Manual { folder: folder.to_owned(), error })
}

fn pages() -> impl Iterator<Item = Command> {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    let subcommands: Vec<Command> = command.get_subcommands().cloned().collect();
    iter::once(command).chain(subcommands)
}
