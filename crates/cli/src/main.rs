//! The command `ratelimit`: arguments in, an exit code out. The work is in the modules.

mod args;
mod audit;
mod columns;
mod decimal;
mod error;
mod exactness;
mod exec;
mod generate;
mod items;
mod job;
mod log;
mod output;
mod page;
mod pipe;
mod progress;
mod records;
mod report;
mod run;
mod stop;
mod template;
mod times;
mod unread;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Run(args) => run::run(*args).map(ExitCode::from),
        Command::Pipe(args) => pipe::pipe(&args).map(ExitCode::from),
        Command::Audit(args) => audit::audit(&args).map(ExitCode::from),
        Command::Completions(args) => generate::completions(args.shell).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => generate::manual(&args.folder).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ratelimit: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
