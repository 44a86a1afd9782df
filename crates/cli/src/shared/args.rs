//! The arguments about limits that several runs share.

use std::num::NonZeroUsize;

use clap::Parser;
use strict_rate_limiter::Limit;

use super::help::{AFTER_FORGET_HELP, AFTER_SET_HELP, AFTER_STATUS_HELP};
use crate::args::limit;

/// The shared limit that a subcommand runs under, if any.
#[derive(Debug, clap::Args)]
pub(crate) struct SharedArgs {
    /// Run under one limit with everything on this machine that says the same: a name, or a path with a / (the
    /// folder that holds it). The first use makes it
    #[arg(long, value_name = "NAME|FOLDER", help_heading = "Limits")]
    pub(crate) shared: Option<String>,

    /// Nothing ran under the shared limit before its folder was made. Without this, a new folder's limits count as
    /// used up when it is made
    #[arg(long, requires = "shared", help_heading = "Limits")]
    pub(crate) fresh: bool,
}

/// Show a shared limit: how full it is, which tasks run, which wait, and when it opens. Changes nothing.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_STATUS_HELP)]
pub(crate) struct StatusArgs {
    /// The shared limit, as run --shared names it
    #[arg(value_name = "NAME|FOLDER")]
    pub(crate) shared: String,

    /// Show it again and again, until interrupted: on a terminal twice a second, else once a second
    #[arg(long)]
    pub(crate) watch: bool,

    /// Print an object of JSON on a line; with --watch, one each second
    #[arg(long)]
    pub(crate) json: bool,
}

/// Change a shared limit for everything that runs under it, at once.
///
/// From then on the new limits hold, also for windows that began before. What runs goes on, what waits keeps its
/// place; a task that is too heavy for the new limits is refused. A limit on weight where there was none counts as
/// used up now.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_SET_HELP)]
pub(crate) struct SetArgs {
    /// The shared limit, as run --shared names it
    #[arg(value_name = "NAME|FOLDER")]
    pub(crate) shared: String,

    /// The new limits, which replace all of the old ones: 10/1s, 90000w/1m
    #[arg(required_unless_present = "concurrency", value_name = "LIMIT", value_parser = limit)]
    pub(crate) limits: Vec<Limit>,

    /// The number of tasks that may run at once, in all processes together
    #[arg(short = 'j', long, value_name = "N")]
    pub(crate) concurrency: Option<NonZeroUsize>,
}

/// Remove a shared limit, with all that it knows of what has run. Says what follows, and asks.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_FORGET_HELP)]
pub(crate) struct ForgetArgs {
    /// The shared limit, as run --shared names it
    #[arg(value_name = "NAME|FOLDER")]
    pub(crate) shared: String,

    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}
