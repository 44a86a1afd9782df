//! Measures every figure in the README, for ours and the peers, in one run on one machine.
//!
//! Each question has a file: does the server see more than it allows (`strictness.rs`), how much of a limit is used
//! (`utilisation.rs`), what a task costs (`cost.rs`), how that grows (`growth.rs`). `peers.rs` sets up the peers;
//! `user_program.rs` runs programs as users build them; `report.rs` and `charts.rs` write the results.

// The figures are rounded in the end, so floats are exact enough.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod charts;
mod cost;
mod growth;
mod peers;
mod report;
mod shared;
mod spread;
mod strictness;
mod user_program;
mod utilisation;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::report::Figures;
use crate::strictness::Latency;

/// Measures everything in about six minutes, prints it, and writes it into docs and the README
///
/// Exit code 1 if the server saw a window of ours overflow.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Takes half a minute: few measurements, only to show that all works; written to target/bench
    #[arg(long)]
    short: bool,
    /// Runs one contender of the cost figures and measures nothing, for profilers
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// The number of tasks, with --only
    #[arg(long, default_value_t = 1_000_000)]
    times: u64,
    /// Measures only this part, and prints it
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// One of the processes that share a folder, with --times
    #[arg(long, value_name = "FOLDER", hide = true)]
    shared_worker: Option<PathBuf>,
    /// On two threads, with --only
    #[arg(long)]
    contended: bool,
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Part {
    /// The programs of users
    Users,
    /// Limits shared by processes, through a folder
    Shared,
}

/// How much is measured.
struct Effort {
    calls: u32,
    latencies: &'static [Latency],
    runs: usize,
    shorten: u32,
    rounds: usize,
    times: u64,
    instructions: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args = Args::parse();
    if let Some(name) = &args.only {
        let is_known = cost::run_only(name, args.contended, args.times);
        return if is_known { Ok(ExitCode::SUCCESS) } else { Err("no such contender".into()) };
    }
    if let Some(folder) = &args.shared_worker {
        shared::work(folder, args.times)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(part) = args.part {
        println!(
            "{}",
            match part {
                Part::Users => report::user_programs(&user_program::measure()?),
                Part::Shared => report::shared(&shared::measure(15, 1)?),
            }
        );
        return Ok(ExitCode::SUCCESS);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no repository")?;
    let (effort, page, readme) = if args.short {
        (Effort::short(), root.join("target/bench/bench.md"), None)
    } else {
        (Effort::full(), root.join("docs/bench.md"), Some(root.join("README.md")))
    };
    let folder = page.with_extension("");
    fs::create_dir_all(&folder)?;
    let figures = effort.measure()?;
    figures.write(&page, &folder.join("figures.json"), readme.as_deref())?;
    charts::draw(&figures, &folder)?;
    println!("{}", fs::read_to_string(&page)?);
    println!("written to {}", relative(&page, root).display());
    if figures.ours_is_strict() {
        Ok(ExitCode::SUCCESS)
    } else {
        eprintln!("the server saw a window of ours overflow");
        Ok(ExitCode::FAILURE)
    }
}

fn relative(page: &Path, root: &Path) -> PathBuf {
    page.strip_prefix(root).unwrap_or(page).to_owned()
}

impl Effort {
    fn full() -> Self {
        Self {
            calls: 240,
            latencies: &Latency::ALL,
            runs: 5,
            shorten: 1,
            rounds: 31,
            times: 200_000,
            instructions: true,
        }
    }

    fn short() -> Self {
        Self {
            calls: 80,
            latencies: &[Latency::None, Latency::Small],
            runs: 1,
            shorten: 20,
            rounds: 3,
            times: 5_000,
            instructions: false,
        }
    }

    fn measure(&self) -> Result<Figures, Box<dyn Error>> {
        let steps = 1 + 4 * self.runs + (self.rounds + 1) + (self.rounds.min(9) + 1) + 2 + 2;
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}, {elapsed}")?;
        let bar = ProgressBar::new(steps as u64).with_style(style);
        bar.enable_steady_tick(std::time::Duration::from_millis(250));
        let step = || bar.inc(1);

        bar.set_message("what the server sees");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
        let strictness = strictness::measure(&runtime, self.calls, self.latencies);
        runtime.shutdown_background();
        step();
        bar.set_message("utilisation");
        let utilisation = utilisation::measure(self.runs, self.shorten, step);
        bar.set_message("cost");
        let mut alone = cost::measure(&cost::ALONE, self.rounds, self.times, step);
        // Contention between threads takes a while to become steady.
        let mut contended =
            cost::measure(&cost::CONTENDED, self.rounds.min(9), 20 * self.times, step);
        bar.set_message("instructions");
        if self.instructions {
            cost::count_instructions(&mut alone, false);
            step();
            cost::count_instructions(&mut contended, true);
            step();
        }
        let user_programs = if self.instructions {
            bar.set_message("users' programs");
            user_program::measure()?
        } else {
            user_program::UserPrograms::default()
        };
        bar.set_message("growth");
        let with_rate = growth::with_rate(self.rounds);
        step();
        let with_waiters = growth::with_waiters(self.rounds);
        bar.set_message("shared by a folder");
        let shared = shared::measure(self.rounds.min(15), self.shorten)?;
        bar.finish_and_clear();
        Ok(Figures {
            cores: thread::available_parallelism()?.get(),
            calls: self.calls,
            strictness,
            utilisation,
            alone,
            contended,
            user_programs,
            with_rate,
            with_waiters,
            shared,
        })
    }
}
