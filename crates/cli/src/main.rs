//! The command `ratelimit`: parses the arguments, calls the subcommand, returns its exit code.

// Only `stdio.rs` prints: there a failed write becomes an exit code. `println!` would panic.
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[cfg(not(unix))]
compile_error!(
    "ratelimit is for Unix: it needs process groups, signals and terminals as Linux and macOS have them"
);

mod args;
mod audit;
mod capture;
mod columns;
mod completions;
mod config;
mod csv_state;
mod display;
mod dry_run;
mod error;
mod exec;
mod foreground;
mod help;
mod history;
mod items;
mod job;
mod log;
mod nanos;
mod ordered_output;
mod pipe;
mod placeholders;
mod process_group;
mod progress;
mod record_reader;
mod resume;
mod run;
mod shared;
mod shell_syntax;
mod shutdown;
mod spawn;
mod spawn_backoff;
mod spool;
mod status_line;
mod stdio;
mod summary;
mod tail_reader;
mod template;
mod unread_output;
mod weight;
mod which;

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
            stdio::tell(&error);
        }
        error.exit_code()
    });
    ExitCode::from(stdio::exit_code(code))
}

fn run(command: Command) -> Result<u8, Error> {
    match command {
        Command::Run(args) => run::run(*args),
        Command::Pipe(args) => pipe::pipe(&args),
        Command::Audit(args) => audit::audit(&args),
        Command::Status(args) => shared::status::status(&args),
        Command::Set(args) => shared::set::set(&args),
        Command::Forget(args) => shared::forget::forget(&args),
        Command::Completions(args) => completions::completions(args.shell).map(|()| 0),
        Command::Man(args) => completions::manual(&args.folder).map(|()| 0),
    }
}

/// Prints clap's message: help and version to standard output, mistakes to standard error.
fn explain(error: &clap::Error) -> Result<u8, Error> {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let text = |terminal: bool| {
        let text = error.render();
        if terminal && !is_set("NO_COLOR") { text.ansi().to_string() } else { text.to_string() }
    };
    if error.use_stderr() {
        stdio::write_message(&text(io::stderr().is_terminal()));
        return Ok(exit::USAGE);
    }
    let text = text(io::stdout().is_terminal());
    stdio::output().write_all(text.as_bytes()).map_err(Error::Output)?;
    Ok(0)
}
