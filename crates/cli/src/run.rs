//! `ratelimit run`: reads items, runs a command for each under the limiter, and collects the reports.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use strict_rate_limiter::{RateLimiter, RateLimiterBuilder};
use tokio::task::{JoinSet, LocalSet};

use crate::args::RunArgs;
use crate::capture::BackgroundPipes;
use crate::config;
use crate::display::shown;
use crate::dry_run;
use crate::error::{Error, exit};
use crate::exec::Executor;
use crate::foreground::Terminal;
use crate::history::History;
use crate::items::{self, InputEvent};
use crate::job::{self, JobContext, JobEnd, JobReport};
use crate::log::Log;
use crate::ordered_output::OrderedOutput;
use crate::progress::Progress;
use crate::resume::{ItemSource, Resumption};
use crate::shared;
use crate::shutdown::{Level, Shutdown};
use crate::spawn::Spawner;
use crate::spawn_backoff::SpawnBackoff;
use crate::spool::Spool;
use crate::status_line::StatusLine;
use crate::stdio;
use crate::summary::NeverStarted;
use crate::template::Template;
use crate::which;

/// How often we check that the output still has a reader, and show the progress.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs to the end. Returns the exit code.
pub(crate) fn run(args: RunArgs) -> Result<u8, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.map_err(Error::Start)?, run_async(args))
}

async fn run_async(args: RunArgs) -> Result<u8, Error> {
    let (draft, format) = config::command_and_input(&args)?;
    if args.dry_run {
        return dry_run::show(&args, &draft, format).await;
    }
    if let Some(program) = draft.program() {
        which::find(program)?;
    }
    let limiter = match &args.limits.shared.shared {
        Some(name) => Limiter::Shared(shared::for_run(name, &args)?),
        None => Limiter::Own(Box::new(config::limiter(&args))),
    };
    if let Limiter::Own(builder) = &limiter {
        builder.clone().build()?; // Complains before anything is opened.
    }
    let executor = executor(&args)?;
    let log = args.log.as_ref().map(|path| Log::open(path, args.resume)).transpose()?;
    let (mut log, mut history) = log.unzip();
    let (items, total) = items::read(args.input.as_deref(), format)?;
    let mut source = ItemSource::new(items);
    let template = source.template(&draft).await?;
    if let (Some(log), Some(path)) = (&mut log, &args.log) {
        log.begin().map_err(|error| Error::Log { path: path.clone(), error: error.into() })?;
    }
    let limiter = match (limiter, &log, &mut history) {
        (Limiter::Shared(limiter), ..) => limiter,
        (Limiter::Own(limiter), Some(log), Some(history)) => {
            resumed(&args, *limiter, &template, log, &mut source, history).await?
        }
        (Limiter::Own(limiter), ..) => limiter.build()?,
    };
    let context = JobContext {
        limiter,
        shutdown: executor.shutdown.clone(),
        log: log.map(RefCell::new),
        log_path: args.log.clone().unwrap_or_default(),
        executor,
        spawn_backoff: SpawnBackoff::default(),
        retries: args.retries,
        retry_delay: args.retry_delay,
    };
    let history = history.unwrap_or_default();
    Run::new(args, template, context, history, total)?.finish(source).await
}

/// A run's limiter: shared with others, which remembers what ran before, or the settings of one of its own.
enum Limiter {
    Shared(RateLimiter),
    Own(Box<RateLimiterBuilder>),
}

/// The limiter of a run with a log, its windows filled with the tasks of earlier runs.
async fn resumed(
    args: &RunArgs,
    limiter: RateLimiterBuilder,
    template: &Template,
    log: &Log,
    source: &mut ItemSource,
    history: &mut History,
) -> Result<RateLimiter, Error> {
    let limits = &args.limits.limits;
    let (concurrency, grace) = (args.concurrency.get(), args.abandon_grace.unwrap_or_default());
    let resumption = Resumption { log, limits, concurrency, grace, template };
    loop {
        let left = resumption.grace_left(history);
        if left.is_zero() {
            return resumption.limiter(limiter, source, history).await;
        }
        if !args.quiet {
            let left = humantime::format_duration(Duration::from_secs(left.as_secs() + 1));
            stdio::tell(format_args!("waiting {left} for the grace of a command that was killed"));
        }
        tokio::time::sleep(left).await;
    }
}

/// The settings of the commands. Creates the spool file now if output is captured, so that an unusable TMPDIR is one
/// error instead of one for each item.
fn executor(args: &RunArgs) -> Result<Executor, Error> {
    let one_at_a_time = args.concurrency.get() == 1;
    let from_stdin = args.input.as_deref().is_none_or(|path| path == Path::new("-"));
    // If items are typed, we read the terminal ourselves.
    let reads_terminal = from_stdin && io::stdin().is_terminal();
    let terminal = Terminal::open();
    let may_read = one_at_a_time && !reads_terminal;
    let capture = !one_at_a_time || args.tag;
    Ok(Executor {
        spawner: Spawner::new(capture, terminal.is_some() && !may_read, args.concurrency.get()),
        spool: if capture { Some(RefCell::new(Spool::open()?)) } else { None },
        background_pipes: BackgroundPipes::default(),
        terminal: terminal.filter(|_| may_read),
        status_line: Rc::new(StatusLine::new(args.quiet)),
        timeout: args.timeout,
        shutdown: Shutdown::new(),
    })
}

/// A run in progress.
struct Run {
    args: RunArgs,
    template: Template,
    context: Rc<JobContext>,
    history: History,
    jobs: JoinSet<(u64, JobReport)>,
    started: u64,
    output: OrderedOutput,
    progress: Progress,
    total: items::Total,
    /// Items that were read but not started, because the run was stopped.
    given_back: u64,
    fatal: Option<Error>,
}

impl Run {
    fn new(
        args: RunArgs,
        template: Template,
        context: JobContext,
        history: History,
        total: items::Total,
    ) -> Result<Self, Error> {
        let status_line = Rc::clone(&context.executor.status_line);
        let progress = Progress::new(Rc::clone(&status_line), args.quiet, args.concurrency.get());
        context.shutdown.on_signals(move |level| {
            status_line.tell(match level {
                Level::Kill => "killing what runs",
                _ => "waiting for what runs; interrupt again to kill it",
            });
        })?;
        Ok(Self {
            args,
            template,
            context: Rc::new(context),
            history,
            jobs: JoinSet::new(),
            started: 0,
            output: OrderedOutput::default(),
            progress,
            total,
            given_back: 0,
            fatal: None,
        })
    }

    /// Starts jobs in the order of the items, up to the concurrency, until the input ends or the run is stopped.
    async fn finish(mut self, mut source: ItemSource) -> Result<u8, Error> {
        let shutdown = self.context.shutdown.clone();
        let (mut more, mut read_all) = (true, false);
        let mut look = tokio::time::interval(LOOK_EVERY);
        while more || !self.jobs.is_empty() {
            let room = self.jobs.len() < self.args.concurrency.get() && self.output.has_room();
            tokio::select! {
                biased;
                Some(ended) = self.jobs.join_next() => {
                    let (place, report) = ended.expect("a job neither panics nor is cancelled");
                    self.job_ended(place, report);
                }
                () = shutdown.reached(Level::Graceful), if more => more = false,
                found = source.next(&mut self.history), if more && room => match found {
                    Some(found) => self.found(found),
                    None => (more, read_all) = (false, true),
                },
                _ = look.tick() => self.look(),
            }
            if let Some(error) = stdio::failure().or_else(|| self.spool_failure()) {
                self.stop_for(error);
            }
            self.progress.counts.skipped = source.skipped;
        }
        self.progress.finish(self.never_started(&mut source, read_all));
        match (self.fatal, shutdown.signalled()) {
            // A closed terminal closes our streams as well.
            (Some(Error::Output(_) | Error::Messages(_)) | None, Some(code)) => Ok(code),
            (Some(fatal), _) => Err(fatal),
            (None, None) => {
                let failed = self.progress.counts.failed + self.progress.counts.refused > 0;
                Ok(if failed { exit::FAILURES } else { 0 })
            }
        }
    }

    /// The periodic checks: the reader of our output, and the progress.
    fn look(&mut self) {
        if stdio::reader_has_gone() {
            self.stop_for(Error::Output(io::ErrorKind::BrokenPipe.into()));
        }
        self.progress.show(self.total.get().copied(), &self.context.limiter);
    }

    fn spool_failure(&self) -> Option<Error> {
        self.context.executor.spool.as_ref()?.borrow().failure()
    }

    /// The items that a stopped run has not started.
    fn never_started(&self, source: &mut ItemSource, read_all: bool) -> NeverStarted {
        match self.total.get() {
            _ if read_all => NeverStarted::Items(self.given_back),
            Some(total) => NeverStarted::Items(total.saturating_sub(self.progress.counts.done())),
            None => NeverStarted::AtLeast(self.given_back + source.known()),
        }
    }

    fn found(&mut self, found: InputEvent) {
        match found {
            InputEvent::Item(item) => match self.template.fill(&item) {
                Ok(command) => {
                    let (context, place) = (Rc::clone(&self.context), self.started);
                    self.started += 1;
                    self.jobs.spawn_local(async move {
                        (place, job::run(&context, item, command).await)
                    });
                }
                Err(what) => self.refused(item.line, &what),
            },
            InputEvent::Malformed { line, what } => self.refused(line, &what),
            InputEvent::Notice(what) => self.progress.status_line.tell(what),
            InputEvent::Columns(_) => {} // The template has them.
            InputEvent::Stop(error) => self.stop_for(error),
        }
    }

    /// Counts a malformed line. The run goes on.
    fn refused(&mut self, line: u64, what: &str) {
        self.progress.status_line.tell(format_args!("line {line}: {what}"));
        self.progress.counts.refused += 1;
        if self.args.halt {
            self.context.shutdown.begin();
        }
    }

    fn job_ended(&mut self, place: u64, report: JobReport) {
        let JobReport { item, end, retries, code, took, messages, output, fatal } = report;
        let progress = &mut self.progress;
        progress.counts.retries += u64::from(retries);
        match end {
            JobEnd::Ok => progress.counts.ok += 1,
            JobEnd::Failed => {
                progress.counts.failed += 1;
                progress.failures.add(item.line, &item.text, code);
            }
            JobEnd::Refused => progress.counts.refused += 1,
            JobEnd::NotStarted => self.given_back += 1,
        }
        if matches!(end, JobEnd::Ok | JobEnd::Failed) {
            progress.ended(took, item.weight);
        }
        for message in messages {
            let text = shown(&item.text);
            progress.status_line.tell(format_args!("line {}, `{text}`: {message}", item.line));
        }
        if matches!(end, JobEnd::Failed | JobEnd::Refused) && self.args.halt {
            self.context.shutdown.begin();
        }
        let tag = self.args.tag.then_some(item.text);
        if let Some(error) = fatal {
            self.stop_for(error);
        }
        let Some(spool) = &self.context.executor.spool else { return };
        let put = || self.output.put(&mut spool.borrow_mut(), place, output, tag);
        if let Err(error) = self.progress.status_line.suspend(put) {
            self.stop_for(error);
        }
    }

    /// Stops the run because of an error that affects every later item.
    fn stop_for(&mut self, error: Error) {
        self.context.shutdown.begin();
        self.fatal.get_or_insert(error);
    }
}
