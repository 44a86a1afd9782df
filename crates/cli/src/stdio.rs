//! The only place that writes to standard output and standard error.
//!
//! Each message is one write, and a failed write never panics. [`failure`] keeps the first error of a message; a run
//! then stops, and the exit code reports it.
//!
//! If a standard descriptor is closed at the start, the standard library opens `/dev/null` in its place before
//! `main`, so that no file of ours gets its number.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdout};

use crate::error::{Error, exit};

/// The error of the first message that could not be written.
static FAILURE: OnceLock<ErrorKind> = OnceLock::new();

/// A standard stream, unbuffered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream(BorrowedFd<'static>);

pub(crate) fn output() -> Stream {
    Stream(stdout())
}

pub(crate) fn errors() -> Stream {
    Stream(stderr())
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(self.0, bytes) {
                Ok(length) => return Ok(length),
                Err(Errno::INTR) => {}
                // A process that shares the stream may have made it non-blocking.
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::from_borrowed_fd(self.0, PollFlags::OUT)], None)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the reader of standard output has gone: the pipe has no reader, the socket no peer, or the terminal is
/// closed. A peer that has only shut down its sending side may still read.
pub(crate) fn reader_has_gone() -> bool {
    let mut fds = [PollFd::from_borrowed_fd(stdout(), PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let gone = PollFlags::ERR | PollFlags::HUP;
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().intersects(gone)
}

/// Writes a message to standard error, as one write.
pub(crate) fn tell(message: impl fmt::Display) {
    write_message(&format!("ratelimit: {message}\n"));
}

/// Writes a whole message, line end included, to standard error.
pub(crate) fn write_message(text: &str) {
    if let Err(error) = errors().write_all(text.as_bytes()) {
        FAILURE.get_or_init(|| error.kind());
    }
}

/// The error of the first message that could not be written, if any.
pub(crate) fn failure() -> Option<Error> {
    FAILURE.get().map(|kind| Error::Messages((*kind).into()))
}

/// The exit code of a command that would end with `code`. If a message could not be written, success and failed
/// tasks become an output error.
pub(crate) fn exit_code(code: u8) -> u8 {
    match failure() {
        Some(error) if matches!(code, 0 | exit::FAILURES | exit::UNDECIDED) => error.exit_code(),
        _ => code,
    }
}
