//! The command, as its users run it. One program, so that it is linked once.

mod audit;
mod capture;
mod ends;
mod generated;
mod items;
mod kill_loop;
mod pipe;
mod placeholders;
mod reader;
mod resume;
mod run;
mod starts;
mod streams;
mod support;
#[cfg(target_os = "linux")]
mod terminal;
