//! `ratelimit run`: items in, commands run under the limiter, reports out.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;

use strict_rate_limiter::{RateLimiterBuilder, Unit};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

use crate::args::RunArgs;
use crate::error::{Error, exit};
use crate::items::{self, Column, Format, Found, Item};
use crate::job::{self, End, Report, Setting};
use crate::log::{Log, Past};
use crate::output::InOrder;
use crate::progress::{self, Progress};
use crate::stop::{Level, Stop};
use crate::streams;
use crate::template::{Template, display};

/// Runs to the end. The exit code, or what prevented it.
pub(crate) fn run(args: RunArgs) -> Result<u8, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.map_err(Error::Start)?, run_async(args))
}

async fn run_async(args: RunArgs) -> Result<u8, Error> {
    let (template, format) = plan(&args)?;
    if args.dry_run {
        return show(&args, &template, format).await;
    }
    if let Some(program) = template.program() {
        find(program)?;
    }
    let limiter = limiter(&args);
    limiter.clone().build()?; // Complains before anything is opened.
    let (log, mut past) = match &args.log {
        Some(path) => {
            let (log, past) = Log::open(path, args.resume)?;
            (Some(log), past)
        }
        None => (None, Past::default()),
    };
    let (items, total) = items::read(args.input.as_deref(), format)?;
    let mut source = Source { items, ahead: VecDeque::new(), skipped: 0 };
    let next = if args.resume {
        source.look_ahead(args.concurrency.get(), &mut past).await
    } else {
        vec![]
    };
    let history = log
        .as_ref()
        .map(|log| past.history(log.begin_ns(), args.concurrency.get(), &next, args.retries > 0));
    let capture = args.concurrency.get() > 1 || args.tag || progress::is_drawn(args.quiet);
    let setting = Setting {
        limiter: limiter.history(history.unwrap_or_default()).build()?,
        stop: Stop::new(),
        log: log.map(RefCell::new),
        log_path: args.log.clone().unwrap_or_default(),
        capture,
        timeout: args.timeout,
        retries: args.retries,
        retry_delay: args.retry_delay,
    };
    Run::new(args, template, setting, past, total)?.finish(source).await
}

/// What the arguments mean for the command and the input.
fn plan(args: &RunArgs) -> Result<(Template, Format), Error> {
    let named_tsv = args.input.as_deref().and_then(Path::extension) == Some(OsStr::new("tsv"));
    let weight = args.weight.as_deref().map(Column::parse);
    let delimiter = match (args.csv, args.tsv) {
        (true, _) => Some(b','),
        (_, true) => Some(b'\t'),
        _ => weight.as_ref().map(|_| if named_tsv { b'\t' } else { b',' }),
    };
    let template = Template::new(&args.command, &args.replace, delimiter.is_some(), args.shell);
    let named = template.columns().chain(&weight).any(Column::is_name);
    let header = args.header || named;
    if header && delimiter.is_none() {
        return Err(Error::Usage("--header needs columns: --csv, --tsv or --weight".into()));
    }
    let weighs = args.limits.limits.iter().any(|limit| limit.unit() == Unit::Weight);
    if weight.is_some() && !weighs {
        return Err(Error::Usage("--weight needs a limit on weight, such as 90000w/1m".into()));
    }
    let terminator = if args.null { 0 } else { b'\n' };
    Ok((template, Format { terminator, delimiter, header, weight }))
}

fn limiter(args: &RunArgs) -> RateLimiterBuilder {
    args.limits.builder().concurrency(args.concurrency.get()).abandon_grace(args.abandon_grace)
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

/// Shows what would be run.
async fn show(args: &RunArgs, template: &Template, format: Format) -> Result<u8, Error> {
    limiter(args).build()?;
    let (mut items, _) = items::read(args.input.as_deref(), format)?;
    let mut out = io::BufWriter::new(streams::output());
    let mut code = 0;
    while let Some(found) = items.recv().await {
        let line = match found {
            Found::Item(item) => template.fill(&item).map_err(|what| (item.line, what)),
            Found::Malformed { line, what } => Err((line, what)),
            Found::Broken(error) => {
                return Err(Error::Input { path: input_name(args), error });
            }
        };
        match line {
            Ok(command) => writeln!(out, "{}", display(&command)).map_err(Error::Output)?,
            Err((line, what)) => {
                streams::tell(format_args!("line {line}: {what}"));
                code = exit::FAILURES;
            }
        }
    }
    out.flush().map_err(Error::Output)?;
    Ok(code)
}

fn input_name(args: &RunArgs) -> std::path::PathBuf {
    args.input.clone().unwrap_or_else(|| "standard input".into())
}

/// What is still to be run: read from the input, less what an earlier run has done.
struct Source {
    items: mpsc::Receiver<Found>,
    ahead: VecDeque<Found>,
    skipped: u64,
}

impl Source {
    async fn next(&mut self, past: &mut Past) -> Option<Found> {
        if let Some(found) = self.ahead.pop_front() {
            return Some(found);
        }
        self.receive(past).await
    }

    async fn receive(&mut self, past: &mut Past) -> Option<Found> {
        loop {
            let found = self.items.recv().await?;
            match &found {
                Found::Item(item) if past.take_done(&item.text) => self.skipped += 1,
                _ => return Some(found),
            }
        }
    }

    /// The weights of the first items to be run, as many as may have been running at once.
    async fn look_ahead(&mut self, items: usize, past: &mut Past) -> Vec<u64> {
        let mut weights = vec![];
        while weights.len() < items
            && let Some(found) = self.receive(past).await
        {
            if let Found::Item(Item { weight, .. }) = &found {
                weights.push(*weight);
            }
            self.ahead.push_back(found);
        }
        weights
    }
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
            Found::Broken(error) => {
                self.stop_for(Error::Input { path: input_name(&self.args), error });
            }
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
            let text = String::from_utf8_lossy(&item.text);
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
