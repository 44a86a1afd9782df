//! `ratelimit run`: items in, commands run under the limiter, reports out.

use std::cell::RefCell;
use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use strict_rate_limiter::{RateLimiter, RateLimiterBuilder};
use tokio::task::{JoinSet, LocalSet};

use crate::args::RunArgs;
use crate::dry_run;
use crate::error::{Error, exit};
use crate::items::{self, Found, shown};
use crate::job::{self, End, Report, Setting};
use crate::log::Log;
use crate::output::InOrder;
use crate::past::Past;
use crate::plan;
use crate::progress::{self, Progress};
use crate::resume::{Resumption, Source};
use crate::stop::{Level, Stop};
use crate::streams;
use crate::template::Template;

/// Runs to the end. The exit code, or what prevented it.
pub(crate) fn run(args: RunArgs) -> Result<u8, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.map_err(Error::Start)?, run_async(args))
}

async fn run_async(args: RunArgs) -> Result<u8, Error> {
    let (draft, format) = plan::plan(&args)?;
    if args.dry_run {
        return dry_run::show(&args, &draft, format).await;
    }
    if let Some(program) = draft.program() {
        find(program)?;
    }
    let limiter = plan::limiter(&args);
    limiter.clone().build()?; // Complains before anything is opened.
    let log = args.log.as_ref().map(|path| Log::open(path, args.resume)).transpose()?;
    let (mut log, mut past) = log.unzip();
    let (items, total) = items::read(args.input.as_deref(), format)?;
    let mut source = Source::new(items);
    let template = source.template(&draft).await?;
    let limiter = match (&mut log, &mut past, &args.log) {
        (Some(log), Some(past), Some(path)) => {
            log.begin().map_err(|error| Error::Log { path: path.clone(), error: error.into() })?;
            resumed(&args, limiter, &template, log, &mut source, past).await?
        }
        _ => limiter.build()?,
    };
    let capture = args.concurrency.get() > 1 || args.tag || progress::is_drawn(args.quiet);
    let setting = Setting {
        limiter,
        stop: Stop::new(),
        log: log.map(RefCell::new),
        log_path: args.log.clone().unwrap_or_default(),
        capture,
        timeout: args.timeout,
        retries: args.retries,
        retry_delay: args.retry_delay,
    };
    let past = past.unwrap_or_default();
    Run::new(args, template, setting, past, total)?.finish(source).await
}

/// The limiter of a run that has a log, with what the log says of earlier runs in its windows.
async fn resumed(
    args: &RunArgs,
    limiter: RateLimiterBuilder,
    template: &Template,
    log: &Log,
    source: &mut Source,
    past: &mut Past,
) -> Result<RateLimiter, Error> {
    let limits = &args.limits.limits;
    let (concurrency, grace) = (args.concurrency.get(), args.abandon_grace);
    let resumption = Resumption { log, limits, concurrency, grace, template };
    loop {
        let left = resumption.grace_left(past);
        if left.is_zero() {
            return resumption.limiter(limiter, source, past).await;
        }
        if !args.quiet {
            let left = humantime::format_duration(Duration::from_secs(left.as_secs() + 1));
            streams::tell(format_args!(
                "waiting {left} for the grace of a command that was killed"
            ));
        }
        tokio::time::sleep(left).await;
    }
}

/// A program that is the same for every item has to be there, or every item would fail.
fn find(program: &OsStr) -> Result<(), Error> {
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let path = Path::new(program);
    let found = if path.components().count() > 1 || path.is_absolute() {
        is_program(path)
    } else {
        let folders = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&folders).any(|folder| is_program(&folder.join(path)))
    };
    if found { Ok(()) } else { Err(Error::NotFound(program.to_string_lossy().into_owned())) }
}

/// A run under way.
struct Run {
    args: RunArgs,
    template: Template,
    setting: Rc<Setting>,
    past: Past,
    jobs: JoinSet<(u64, Report)>,
    started: u64,
    output: InOrder,
    progress: Rc<RefCell<Progress>>,
    total: items::Total,
    fatal: Option<Error>,
}

impl Run {
    fn new(
        args: RunArgs,
        template: Template,
        setting: Setting,
        past: Past,
        total: items::Total,
    ) -> Result<Self, Error> {
        let progress = Rc::new(RefCell::new(Progress::new(args.quiet)));
        let teller = Rc::clone(&progress);
        setting.stop.on_signals(move |level| {
            teller.borrow().tell(match level {
                Level::Kill => "killing what runs",
                _ => "waiting for what runs; interrupt again to kill it",
            });
        })?;
        Ok(Self {
            args,
            template,
            setting: Rc::new(setting),
            past,
            jobs: JoinSet::new(),
            started: 0,
            output: InOrder::default(),
            progress,
            total,
            fatal: None,
        })
    }

    /// Keeps as many jobs going as may be, in the order of the items, until there is nothing left or
    /// it is told to stop.
    async fn finish(mut self, mut source: Source) -> Result<u8, Error> {
        let stop = self.setting.stop.clone();
        let mut more = true;
        while more || !self.jobs.is_empty() {
            let room = self.jobs.len() < self.args.concurrency.get();
            tokio::select! {
                biased;
                Some(ended) = self.jobs.join_next() => {
                    let (place, report) = ended.expect("a job neither panics nor is cancelled");
                    self.job_ended(place, report);
                }
                () = stop.reached(Level::Gently), if more => more = false,
                found = source.next(&mut self.past), if more && room => match found {
                    Some(found) => self.found(found),
                    None => more = false,
                },
            }
            if let Some(error) = streams::failure() {
                self.stop_for(error);
            }
            let mut progress = self.progress.borrow_mut();
            progress.counts.skipped = source.skipped;
            progress.update(self.total.get().copied());
        }
        self.progress.borrow().finish();
        if let Some(fatal) = self.fatal {
            return Err(fatal);
        }
        let counts = self.progress.borrow().counts;
        let failed = counts.failed + counts.refused > 0;
        Ok(stop.signalled().unwrap_or(if failed { exit::FAILURES } else { 0 }))
    }

    fn found(&mut self, found: Found) {
        match found {
            Found::Item(item) => match self.template.fill(&item) {
                Ok(command) => {
                    let (setting, place) = (Rc::clone(&self.setting), self.started);
                    self.started += 1;
                    self.jobs.spawn_local(async move {
                        (place, job::run(&setting, item, command).await)
                    });
                }
                Err(what) => self.refused(item.line, &what),
            },
            Found::Malformed { line, what } => self.refused(line, &what),
            Found::Notice(what) => self.progress.borrow().tell(what),
            Found::Columns(_) => {} // The template has them.
            Found::Stop(error) => self.stop_for(error),
        }
    }

    /// A line that cannot be run. The others are.
    fn refused(&mut self, line: u64, what: &str) {
        let mut progress = self.progress.borrow_mut();
        progress.tell(format_args!("line {line}: {what}"));
        progress.counts.refused += 1;
        if self.args.halt {
            self.setting.stop.gently();
        }
    }

    fn job_ended(&mut self, place: u64, report: Report) {
        let Report { item, end, retries, messages, output, fatal } = report;
        {
            let mut progress = self.progress.borrow_mut();
            progress.counts.retries += u64::from(retries);
            match end {
                End::Ok => progress.counts.ok += 1,
                End::Failed => progress.counts.failed += 1,
                End::Refused => progress.counts.refused += 1,
                End::NotStarted => {}
            }
            let text = shown(&item.text);
            for message in messages {
                progress.tell(format_args!("line {}, `{text}`: {message}", item.line));
            }
        }
        if matches!(end, End::Failed | End::Refused) && self.args.halt {
            self.setting.stop.gently();
        }
        let tag = self.args.tag.then_some(item.text);
        let written = self.progress.borrow().aside(|| self.output.put(place, output, tag));
        let fatal = fatal.or(written.map_err(Error::Output).err());
        if let Some(error) = fatal {
            self.stop_for(error);
        }
    }

    /// Something that no later item can mend.
    fn stop_for(&mut self, error: Error) {
        self.setting.stop.gently();
        self.fatal.get_or_insert(error);
    }
}
