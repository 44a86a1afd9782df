//! The command, as its users run it. One program, so that it is linked once.

mod audit;
mod broken_pipe;
mod capture;
mod completions;
mod items;
mod kill_loop;
mod log;
mod pipe;
mod placeholders;
mod resume;
mod run;
#[cfg(target_os = "linux")]
mod shared;
#[cfg(target_os = "linux")]
mod shared_failures;
mod shutdown;
mod spawn;
mod stdio;
mod support;
#[cfg(target_os = "linux")]
mod terminal;
