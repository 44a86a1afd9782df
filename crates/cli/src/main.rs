//! The command `ratelimit`: arguments in, an exit code out. The work is in the modules.

mod args;
mod error;
mod exec;
mod items;
mod job;
mod log;
mod output;
mod progress;
mod run;
mod stop;
mod template;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    let Args { command: Command::Run(args) } = Args::parse();
    match run::run(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("ratelimit: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
