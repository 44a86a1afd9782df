//! The command `ratelimit`: arguments in, an exit code out. The work is in the modules.

// Everything that is printed goes through `streams.rs`, where a write that fails is an exit code and no panic.
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[cfg(not(unix))]
compile_error!(
    "ratelimit is for Unix: it needs process groups, signals and terminals as Linux and macOS have them"
);

mod args;
mod audit;
mod braces;
mod busy;
mod capture;
mod columns;
mod csv_place;
mod dry_run;
mod error;
mod exec;
mod generate;
mod group;
mod help;
mod items;
mod job;
mod log;
mod output;
mod past;
mod pipe;
mod plan;
mod program;
mod progress;
mod resume;
mod run;
mod screen;
mod shell;
mod spool;
mod start;
mod stop;
mod streams;
mod summary;
mod template;
mod terminal;
mod texts;
mod unread;
mod weight;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::{env, io};

use args::{Args, Command};
use error::{Error, exit};

fn main() -> ExitCode {
    let done = match Args::read() {
        Ok(args) => run(args.command),
        Err(error) => explain(&error),
    };
    let code = done.unwrap_or_else(|error| {
        if !error.is_broken_pipe() {
            streams::tell(&error);
        }
        error.exit_code()
    });
    ExitCode::from(streams::exit_code(code))
}

fn run(command: Command) -> Result<u8, Error> {
    match command {
        Command::Run(args) => run::run(*args),
        Command::Pipe(args) => pipe::pipe(&args),
        Command::Audit(args) => audit::audit(&args),
        Command::Completions(args) => generate::completions(args.shell).map(|()| 0),
        Command::Man(args) => generate::manual(&args.folder).map(|()| 0),
    }
}

/// Writes what clap has to say: help and version to standard output, mistakes to standard error.
fn explain(error: &clap::Error) -> Result<u8, Error> {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let text = |terminal: bool| {
        let text = error.render();
        if terminal && !is_set("NO_COLOR") { text.ansi().to_string() } else { text.to_string() }
    };
    if error.use_stderr() {
        streams::write_message(&text(io::stderr().is_terminal()));
        return Ok(exit::USAGE);
    }
    let text = text(io::stdout().is_terminal());
    streams::output().write_all(text.as_bytes()).map_err(Error::Output)?;
    Ok(0)
}
