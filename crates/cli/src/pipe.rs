//! `ratelimit pipe`: what comes in goes out, unchanged and in order, no faster than the limits allow.
//!
//! A line is a task: it starts when it is about to be written and has completed when whoever reads it
//! has taken it over, that is when the flush has returned. One at a time, so nothing is reordered.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, IsTerminal, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use strict_rate_limiter::{Limit, RateLimiter, Unit};

use crate::args::PipeArgs;
use crate::error::{Error, exit};
use crate::progress::is_drawn;

/// Copies to the end. The exit code, or what prevented it.
pub(crate) fn pipe(args: &PipeArgs) -> Result<u8, Error> {
    let limits = &args.limits.limits;
    let of_weight = || limits.iter().filter(|limit| limit.unit() == Unit::Weight);
    if args.bytes != of_weight().next().is_some() {
        return Err(Error::Usage(
            "bytes are weight: --bytes needs a limit on weight, such as 1000000w/1s, and a limit on \
             weight needs --bytes"
                .into(),
        ));
    }
    let limiter = args.limits.builder().build()?;
    let from = args.input.as_deref().filter(|path| *path != Path::new("-"));
    let unreadable = |error| Error::Input {
        path: from.map_or_else(|| "standard input".into(), Path::to_owned),
        error,
    };
    let mut total = None;
    let mut input: Box<dyn BufRead> = match from {
        Some(path) => {
            let file = File::open(path).map_err(unreadable)?;
            total = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
            Box::new(BufReader::new(file))
        }
        None => Box::new(io::stdin().lock()),
    };
    let terminator = if args.null { 0 } else { b'\n' };
    let longest = of_weight().map(Limit::rate).min().unwrap_or(u64::MAX);
    let meter = Meter::new(args.quiet, total);
    let mut out = io::stdout().lock();
    let mut piece = Vec::new();
    loop {
        piece.clear();
        let read = (&mut input).take(longest).read_until(terminator, &mut piece);
        if read.map_err(unreadable)? == 0 {
            meter.finish();
            return Ok(0);
        }
        let weight = if args.bytes { piece.len() as u64 } else { 1 };
        match write(&limiter, weight, &piece, &mut out) {
            Ok(()) => meter.passed(&piece, terminator),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                meter.finish();
                return Ok(exit::BROKEN_PIPE);
            }
            Err(error) => return Err(Error::Output(error)),
        }
    }
}

fn write(limiter: &RateLimiter, weight: u64, piece: &[u8], out: &mut impl Write) -> io::Result<()> {
    let permit = limiter.acquire_weight_blocking(weight);
    let permit = permit.expect("nobody closes it, and no piece is too heavy");
    let written = out.write_all(piece).and_then(|()| out.flush());
    permit.complete();
    written
}

/// What a person sees of it: on a terminal a line that moves, and one line at the end.
struct Meter {
    bar: ProgressBar,
    quiet: bool,
    begin: Instant,
    lines: Arc<AtomicU64>,
}

impl Meter {
    fn new(quiet: bool, total: Option<u64>) -> Self {
        // Where what passes is shown on the same terminal, a moving line would be written over.
        let bar = if is_drawn(quiet) && !io::stdout().is_terminal() {
            ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(8))
        } else {
            ProgressBar::hidden()
        };
        let lines = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lines);
        let style = ProgressStyle::with_template(if total.is_some() {
            "{lines} lines, {binary_bytes} {elapsed} [{binary_bytes_per_sec}] [{bar:30}] {percent}% ETA {eta}"
        } else {
            "{lines} lines, {binary_bytes} {elapsed} [{binary_bytes_per_sec}] {spinner}"
        });
        let style = style.expect("the template is a constant").progress_chars("=> ");
        bar.set_style(style.with_key(
            "lines",
            move |_: &ProgressState, to: &mut dyn std::fmt::Write| {
                let _ = write!(to, "{}", counted.load(Ordering::Relaxed));
            },
        ));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, quiet, begin: Instant::now(), lines }
    }

    fn passed(&self, piece: &[u8], terminator: u8) {
        if piece.last() == Some(&terminator) {
            self.lines.fetch_add(1, Ordering::Relaxed);
        }
        self.bar.inc(piece.len() as u64);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
        if !self.quiet {
            let lines = self.lines.load(Ordering::Relaxed);
            let (bytes, took) = (BinaryBytes(self.bar.position()), self.begin.elapsed());
            eprintln!("ratelimit: {lines} lines, {bytes} in {:.2} s", took.as_secs_f64());
        }
    }
}
