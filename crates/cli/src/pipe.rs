//! `ratelimit pipe`: copies standard input to standard output, in order and unchanged, under the limits.
//!
//! A line is a task. It starts just before it is written, and completes when the reader has read it, as far as
//! the kernel tells (`unread_output.rs`). Lines with permits are written together, and always before this waits.
//!
//! A reader that stalls would later read all waiting lines at once, and may act on them at once. So no more is
//! unread at a time than the limits allow in one [`TURN`]: for most limits, one line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use strict_rate_limiter::store::StoreError;
use strict_rate_limiter::{AcquireError, Limit, Permit, RateLimiter, TryAcquireError, Unit};

use crate::args::PipeArgs;
use crate::display::counted;
use crate::error::{Error, exit};
use crate::shared;
use crate::status_line::is_drawn;
use crate::stdio;
use crate::unread_output::{UnreadOutput, Woken, write_all};

/// The time in which a reader can read and be woken again without slowing the limit. A waiting reader takes some
/// 50 µs.
const TURN: Duration = Duration::from_millis(1);

/// The most lines that may be unread, however high the limit.
const LINES_MAX: u64 = 1 << 16;

/// The most bytes in one write.
const TOGETHER: usize = 1 << 16;

/// `poll` wakes some 50 µs late, the limiter only a few. So the last part of a wait is left to the limiter.
const LIMITERS_SHARE: Duration = Duration::from_millis(1);

/// Copies to the end of the input. Returns the exit code.
pub(crate) fn pipe(args: &PipeArgs) -> Result<u8, Error> {
    let limiter = limiter(args)?;
    let from = args.input.as_deref().filter(|path| *path != Path::new("-"));
    let unreadable = |error| Error::Input {
        path: from.map_or_else(|| "standard input".into(), Path::to_owned),
        error,
    };
    let input = match from {
        Some(path) => File::open(path),
        None => io::stdin().as_fd().try_clone_to_owned().map(File::from),
    };
    let input = input.map_err(unreadable)?;
    let is_file = |input: &File| input.metadata().ok().filter(std::fs::Metadata::is_file);
    let file_length = is_file(&input).map(|file| file.len());
    let out = rustix::stdio::stdout();
    let mut copy = Copier {
        limiter: &limiter,
        is_shared: args.limits.shared.shared.is_some(),
        bounds: Bounds::of(&limiter.limits(), args.bytes),
        input: BufReader::with_capacity(TOGETHER, input),
        waits_for_input: file_length.is_none(),
        terminator: if args.null { 0 } else { b'\n' },
        bytes_are_weight: args.bytes,
        out,
        unread: UnreadOutput::new(out),
        buffer: vec![],
        granted: 0,
        permits: vec![],
        lines: 0,
        progress: PipeProgress::new(args.quiet, file_length.filter(|_| from.is_some())),
    };
    match copy.all() {
        Ok(()) => {
            copy.progress.finish();
            Ok(0)
        }
        Err(CopyError::Reading(error)) => Err(unreadable(error)),
        Err(CopyError::Limiter(error)) => {
            copy.progress.finish();
            Err(Error::Store(error))
        }
        Err(CopyError::Writing(error)) if error.kind() == ErrorKind::BrokenPipe => {
            copy.progress.finish();
            Ok(exit::BROKEN_PIPE)
        }
        Err(CopyError::Writing(error)) => Err(Error::Output(error)),
    }
}

/// The limiter of this process, or the shared one.
fn limiter(args: &PipeArgs) -> Result<RateLimiter, Error> {
    let given = &args.limits.limits;
    let check = |limits: &[Limit]| {
        let on_weight = limits.iter().any(|limit| limit.unit() == Unit::Weight);
        if args.bytes == on_weight {
            return Ok(());
        }
        Err(Error::Usage(
            "bytes are weight: --bytes needs a limit on weight, such as 1000000w/1s, and a limit on \
             weight needs --bytes"
                .into(),
        ))
    };
    let Some(name) = &args.limits.shared.shared else {
        check(given)?;
        let at_once = Bounds::of(given, args.bytes).lines;
        return Ok(args.limits.builder().concurrency(at_once).build()?);
    };
    if !given.is_empty() {
        check(given)?;
    }
    let at_once = Bounds::of(given, args.bytes).lines;
    let limiter = shared::for_pipe(name, &args.limits, at_once, args.quiet)?;
    check(&limiter.limits())?;
    Ok(limiter)
}

/// How much may be unread at once under some limits.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    lines: usize,
    /// The most bytes, except for one longer piece.
    bytes: u64,
    /// A longer line is written in pieces.
    longest: usize,
}

impl Bounds {
    fn of(limits: &[Limit], bytes_are_weight: bool) -> Self {
        let of = |unit| limits.iter().filter(move |limit| limit.unit() == unit);
        let of_weight = || of(Unit::Weight).filter(|_| bytes_are_weight);
        let lines = of(Unit::Task).map(in_a_turn).min().unwrap_or(LINES_MAX).min(LINES_MAX);
        let longest = of_weight().map(Limit::rate).min().unwrap_or(u64::MAX);
        Self {
            lines: lines as usize,
            bytes: of_weight().map(in_a_turn).min().unwrap_or(u64::MAX),
            longest: usize::try_from(longest).unwrap_or(usize::MAX),
        }
    }
}

/// The units that a limit allows in one [`TURN`]; at least one.
fn in_a_turn(limit: &Limit) -> u64 {
    let units = u128::from(limit.rate()) * TURN.as_nanos() / u128::from(limit.per_ns());
    u64::try_from(units).unwrap_or(u64::MAX).max(1)
}

/// An error that ended the copying.
enum CopyError {
    Reading(io::Error),
    Writing(io::Error),
    /// The shared limit has failed.
    Limiter(StoreError),
}

struct Copier<'a> {
    limiter: &'a RateLimiter,
    is_shared: bool,
    bounds: Bounds,
    input: BufReader<File>,
    /// The input is a pipe, socket or terminal: reads may have to wait.
    waits_for_input: bool,
    terminator: u8,
    bytes_are_weight: bool,
    out: BorrowedFd<'a>,
    unread: UnreadOutput<'a>,
    /// The pieces with permits, up to `granted`; behind them one without a permit yet.
    buffer: Vec<u8>,
    granted: usize,
    permits: Vec<Permit<'a>>,
    /// The number of pieces with a permit that end a line.
    lines: u64,
    progress: PipeProgress,
}

impl<'a> Copier<'a> {
    fn all(&mut self) -> Result<(), CopyError> {
        while self.read_piece()? {
            self.acquire()?;
            if self.granted >= TOGETHER {
                self.write().map_err(CopyError::Writing)?;
            }
        }
        self.write().map_err(CopyError::Writing)
    }

    /// Reads a line, or the longest piece of it that may go at once. `false` at the end of the input.
    fn read_piece(&mut self) -> Result<bool, CopyError> {
        loop {
            if self.input.buffer().is_empty() {
                self.write().map_err(CopyError::Writing)?;
                self.wait_for_input().map_err(CopyError::Writing)?;
            }
            let input = match self.input.fill_buf() {
                Ok(input) => input,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Another process that shares the file may have made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(CopyError::Reading(error)),
            };
            let piece = self.buffer.len() - self.granted;
            if input.is_empty() {
                return Ok(piece > 0);
            }
            let room = self.bounds.longest - piece;
            let input = &input[..input.len().min(room)];
            let line_end = input.iter().position(|byte| *byte == self.terminator);
            let length = line_end.map_or(input.len(), |at| at + 1);
            self.buffer.extend_from_slice(&input[..length]);
            self.input.consume(length);
            if line_end.is_some() || length == room {
                return Ok(true);
            }
        }
    }

    fn wait_for_input(&mut self) -> io::Result<()> {
        while self.waits_for_input {
            if self.unread.wait(Some(self.input.get_ref().as_fd()), None)? == Woken::Input {
                break;
            }
        }
        Ok(())
    }

    /// Acquires a permit for the piece that was read; several, if a shared limit has been lowered since.
    fn acquire(&mut self) -> Result<(), CopyError> {
        while self.granted < self.buffer.len() {
            let piece = (self.buffer.len() - self.granted).min(self.bounds.longest);
            match self.permit(piece)? {
                Some(permit) => {
                    self.permits.push(permit);
                    self.granted += piece;
                }
                None => self.bounds = Bounds::of(&self.limiter.limits(), self.bytes_are_weight),
            }
        }
        self.lines += u64::from(self.buffer.last() == Some(&self.terminator));
        Ok(())
    }

    /// A permit for this many bytes. `None` if that is too heavy, as the limits have changed.
    fn permit(&mut self, piece: usize) -> Result<Option<Permit<'a>>, CopyError> {
        let weight = if self.bytes_are_weight { piece as u64 } else { 1 };
        loop {
            let mut not_before = None;
            let unread = self.granted + self.unread.bytes();
            let lines = self.permits.len() + self.unread.permits();
            let has_room = unread == 0 || (unread + piece) as u64 <= self.bounds.bytes;
            if has_room && lines < self.bounds.lines {
                match self.limiter.request().weight(weight).try_acquire() {
                    Ok(permit) => return Ok(Some(permit)),
                    Err(TryAcquireError::Busy { not_before: at }) => not_before = at,
                    Err(TryAcquireError::Store(error)) => return Err(CopyError::Limiter(error)),
                    Err(TryAcquireError::Weight(_)) => return Ok(None),
                    Err(_) => unreachable!("nobody closes it"),
                }
            }
            if self.granted > 0 {
                self.write().map_err(CopyError::Writing)?;
            } else if !self.unread.is_empty() {
                self.unread.wait(None, not_before).map_err(CopyError::Writing)?;
            } else if self.is_shared {
                return self.queue(weight);
            } else {
                let near = not_before.and_then(|at| at.checked_sub(LIMITERS_SHARE));
                if near.is_some_and(|near| near > Instant::now()) {
                    self.unread.wait(None, near).map_err(CopyError::Writing)?;
                } else {
                    let permit = self.limiter.request().weight(weight).acquire_blocking();
                    return Ok(Some(permit.expect("nobody closes it, and no piece is too heavy")));
                }
            }
        }
    }

    /// Waits in the queue of the shared limit, in which others are waiting as well. `None` as above.
    fn queue(&mut self, weight: u64) -> Result<Option<Permit<'a>>, CopyError> {
        let request = || self.limiter.request().weight(weight);
        match shared::acquire(request).map_err(CopyError::Writing)? {
            Ok(permit) => Ok(Some(permit)),
            Err(AcquireError::Store(error)) => Err(CopyError::Limiter(error)),
            Err(_) => Ok(None),
        }
    }

    /// Writes the pieces that have permits.
    fn write(&mut self) -> io::Result<()> {
        if self.granted == 0 {
            return Ok(());
        }
        write_all(self.out, &self.buffer[..self.granted])?;
        self.unread.wrote(self.granted, std::mem::take(&mut self.permits));
        self.progress.passed(std::mem::take(&mut self.lines), self.granted);
        self.buffer.drain(..self.granted);
        self.granted = 0;
        Ok(())
    }
}

/// The progress line on a terminal, and the summary at the end.
struct PipeProgress {
    bar: ProgressBar,
    quiet: bool,
    begin: Instant,
    lines: Arc<AtomicU64>,
}

impl PipeProgress {
    fn new(quiet: bool, total: Option<u64>) -> Self {
        // If standard output is a terminal too, its lines would overwrite the progress line.
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

    fn passed(&self, lines: u64, bytes: usize) {
        self.lines.fetch_add(lines, Ordering::Relaxed);
        self.bar.inc(bytes as u64);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
        if !self.quiet {
            let lines = counted(self.lines.load(Ordering::Relaxed), "line");
            let (bytes, took) = (BinaryBytes(self.bar.position()), self.begin.elapsed());
            stdio::tell(format_args!("{lines}, {bytes} in {:.2} s", took.as_secs_f64()));
        }
    }
}
