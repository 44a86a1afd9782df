//! Holds the permits of written bytes until the reader of standard output has read them.
//!
//! A write returns when the bytes are in the kernel. The reader may read them much later, and then all at once. So a
//! permit completes when the kernel reports that its bytes have been read:
//!
//! * For a **pipe**, it reports the number of bytes in it (`FIONREAD`, on Linux).
//! * For a **socket**, it reports whether bytes are left (`SIOCOUTQ`, on Linux): on a Unix socket those that the
//!   peer has not read, on a TCP socket those that the peer's system has not acknowledged.
//! * For **anything else** it reports nothing. Bytes count as read when they have been written.
//!
//! A permit never completes early. If other processes write to the same pipe, it looks fuller and permits complete
//! later. If the kernel does not support a query, the stream is treated as *anything else*.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};
use strict_rate_limiter::Permit;

/// The time between two queries: an eighth of the wait so far, within these bounds.
const NAP_MIN: Duration = Duration::from_micros(20);
const NAP_MAX: Duration = Duration::from_millis(20);

/// What the kernel reports about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KernelReport {
    /// The number of bytes in it.
    Fill,
    /// Whether any bytes are in it.
    Empty,
    Nothing,
}

/// Bytes that were written together, and the permits for them.
struct Batch<'a> {
    /// The batch has been read when [`UnreadOutput::read`] reaches this.
    read_at: u64,
    bytes: usize,
    permits: Vec<Permit<'a>>,
}

/// The written bytes that have not been read, with their permits.
pub(crate) struct UnreadOutput<'a> {
    out: BorrowedFd<'a>,
    kernel_report: KernelReport,
    batches: VecDeque<Batch<'a>>,
    /// The number of bytes in the batches.
    bytes: usize,
    /// The number of permits in the batches.
    permits: usize,
    /// At least this many bytes have been read since the beginning, of ours and of other writers.
    read: u64,
    /// The number of bytes in the stream at the last query.
    fill: u64,
    /// The last time that bytes were written, or seen to be read.
    moved: Instant,
}

/// The reason why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Input is ready, or its end.
    Input,
    /// It is time to query the kernel again.
    Look,
}

impl<'a> UnreadOutput<'a> {
    pub(crate) fn new(out: BorrowedFd<'a>) -> Self {
        let mut unread = Self {
            out,
            kernel_report: kernel_report(out),
            batches: VecDeque::new(),
            bytes: 0,
            permits: 0,
            read: 0,
            fill: 0,
            moved: Instant::now(),
        };
        // Bytes that are in the pipe already are not ours.
        unread.look();
        unread
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The number of unread bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of permits for them.
    pub(crate) fn permits(&self) -> usize {
        self.permits
    }

    /// Adds bytes that have just been written.
    pub(crate) fn wrote(&mut self, bytes: usize, permits: Vec<Permit<'a>>) {
        self.moved = Instant::now();
        self.fill += bytes as u64;
        self.bytes += bytes;
        self.permits += permits.len();
        // Those of them that are unread are among the bytes in the pipe after this query.
        self.batches.push_back(Batch { read_at: u64::MAX, bytes, permits });
        self.look();
        if let Some(batch) = self.batches.back_mut() {
            batch.read_at = self.read + self.fill;
        }
    }

    /// Queries the kernel, and completes the permits of the bytes that have been read.
    pub(crate) fn look(&mut self) {
        let fill = match self.kernel_report {
            KernelReport::Fill => ioctl_fionread(self.out).ok(),
            KernelReport::Empty => outgoing(self.out).ok(),
            KernelReport::Nothing => Some(0),
        };
        let fill = fill.unwrap_or_else(|| {
            self.kernel_report = KernelReport::Nothing;
            0
        });
        if fill == 0 {
            self.read += self.fill;
            self.fill = 0;
        } else if self.kernel_report == KernelReport::Fill {
            self.read += self.fill.saturating_sub(fill);
            self.fill = fill;
        }
        while self.batches.front().is_some_and(|batch| fill == 0 || batch.read_at <= self.read) {
            let Some(batch) = self.batches.pop_front() else { break };
            self.bytes -= batch.bytes;
            self.permits -= batch.permits.len();
            self.moved = Instant::now();
            for permit in batch.permits {
                permit.complete();
            }
        }
    }

    /// Waits until input is ready (if `input` is given), until `until`, or until the next query is due. Fails with
    /// `BrokenPipe` if the reader has gone.
    pub(crate) fn wait(
        &mut self,
        input: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> io::Result<Woken> {
        let now = Instant::now();
        let nap = (!self.is_empty())
            .then(|| now.saturating_duration_since(self.moved) / 8)
            .map(|nap| nap.clamp(NAP_MIN, NAP_MAX));
        let left = until.map(|until| until.saturating_duration_since(now));
        let timeout = [nap, left].into_iter().flatten().min();
        // Even without requested events, `poll` reports that the other end is gone.
        let out = PollFd::from_borrowed_fd(self.out, PollFlags::empty());
        let input = input.map(|input| PollFd::from_borrowed_fd(input, PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = [Some(out), input].into_iter().flatten().collect();
        match poll(&mut fds, timeout.map(timespec).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.look();
        if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let has_input = fds.get(1).is_some_and(|input| !input.revents().is_empty());
        Ok(if has_input { Woken::Input } else { Woken::Look })
    }
}

/// Writes all bytes, even if another process has made the stream non-blocking.
pub(crate) fn write_all(out: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(out, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(out, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn timespec(time: Duration) -> Timespec {
    // Cut to a year: the caller polls again.
    let time = time.min(Duration::from_secs(365 * 86_400));
    Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() }
}

fn kernel_report(out: BorrowedFd<'_>) -> KernelReport {
    let kind = || File::from(out.try_clone_to_owned().ok()?).metadata().ok();
    match kind().map(|kind| kind.file_type()) {
        _ if !cfg!(any(target_os = "linux", target_os = "android")) => KernelReport::Nothing,
        Some(kind) if kind.is_fifo() => KernelReport::Fill,
        Some(kind) if kind.is_socket() => KernelReport::Empty,
        _ => KernelReport::Nothing,
    }
}

/// The bytes of a socket that are not yet read, or not yet acknowledged. For a Unix socket, the memory that they
/// occupy.
#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64", target_arch = "arm"),
))]
fn outgoing(out: impl AsFd) -> rustix::io::Result<u64> {
    // `SIOCOUTQ` of asm-generic/sockios.h, which these architectures use.
    type OutQueue = rustix::ioctl::Getter<0x5411, core::ffi::c_int>;
    // SAFETY: the request writes one C int, and nothing else.
    let length = unsafe { rustix::ioctl::ioctl(out, OutQueue::new()) }?;
    u64::try_from(length).map_err(|_| Errno::RANGE)
}

#[cfg(not(all(
    any(target_os = "linux", target_os = "android"),
    any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64", target_arch = "arm"),
)))]
fn outgoing(_: impl AsFd) -> rustix::io::Result<u64> {
    Err(Errno::NOTTY)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
    use std::os::unix::net::UnixStream;

    use strict_rate_limiter::RateLimiter;

    use super::*;

    /// Writes bytes under one permit.
    fn write<'a>(unread: &mut UnreadOutput<'a>, limiter: &'a RateLimiter, bytes: &[u8]) {
        let permit = limiter.try_acquire().unwrap();
        write_all(unread.out, bytes).unwrap();
        unread.wrote(bytes.len(), vec![permit]);
    }

    fn read(from: &mut impl Read, length: usize) {
        from.read_exact(&mut vec![0; length]).unwrap();
    }

    fn limiter() -> RateLimiter {
        let builder = RateLimiter::builder().limit("1000/1s".parse().unwrap());
        builder.concurrency(1000).build().unwrap()
    }

    fn pipes() -> (PipeReader, PipeWriter) {
        pipe().unwrap()
    }

    #[test]
    fn a_permit_completes_when_the_last_of_its_bytes_has_been_read() {
        let limiter = limiter();
        let (mut reader, writer) = pipes();
        let mut unread = UnreadOutput::new(writer.as_fd());
        write(&mut unread, &limiter, b"one\n");
        write(&mut unread, &limiter, b"two\n");
        assert_eq!((limiter.stats().running, unread.bytes()), (2, 8));
        read(&mut reader, 3);
        unread.look();
        assert_eq!(limiter.stats().running, 2, "its line end is still to be read");
        read(&mut reader, 1);
        unread.look();
        assert_eq!((limiter.stats().running, unread.bytes()), (1, 4));
        read(&mut reader, 4);
        unread.look();
        assert_eq!((limiter.stats().running, unread.is_empty()), (0, true));
    }

    #[test]
    fn what_others_write_to_the_pipe_only_makes_it_later() {
        let limiter = limiter();
        let (mut reader, mut writer) = pipes();
        let mut others = writer.try_clone().unwrap();
        others.write_all(b"before").unwrap();
        let out = writer.try_clone().unwrap();
        let mut unread = UnreadOutput::new(out.as_fd());
        write(&mut unread, &limiter, b"ours\n");
        writer.write_all(b"after").unwrap();
        unread.look();
        read(&mut reader, 6);
        unread.look();
        assert_eq!(limiter.stats().running, 1, "only what was there before has been read");
        // The pipe never runs empty, but ours must be among the bytes that were read.
        for _ in 0..3 {
            writer.write_all(b"more").unwrap();
            unread.look();
            read(&mut reader, 4);
            unread.look();
        }
        assert_eq!(limiter.stats().running, 0);
    }

    #[test]
    fn of_a_socket_it_is_told_when_all_has_been_read() {
        let limiter = limiter();
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let mut unread = UnreadOutput::new(writer.as_fd());
        assert_eq!(unread.kernel_report, KernelReport::Empty);
        write(&mut unread, &limiter, b"one\n");
        write(&mut unread, &limiter, b"two\n");
        read(&mut reader, 7);
        unread.look();
        assert_eq!(limiter.stats().running, 2);
        read(&mut reader, 1);
        unread.look();
        assert_eq!(limiter.stats().running, 0);
    }

    #[test]
    fn of_a_file_nothing_is_told_so_what_is_written_counts_as_read() {
        let limiter = limiter();
        let file = tempfile::tempfile().unwrap();
        let mut unread = UnreadOutput::new(file.as_fd());
        write(&mut unread, &limiter, b"one\n");
        assert_eq!((limiter.stats().running, unread.is_empty()), (0, true));
    }

    #[test]
    fn a_question_that_is_not_answered_is_not_waited_for() {
        let limiter = limiter();
        let file = tempfile::tempfile().unwrap();
        let mut unread = UnreadOutput::new(file.as_fd());
        // Treat the file as a socket: the kernel does not support that query.
        unread.kernel_report = KernelReport::Empty;
        write(&mut unread, &limiter, b"one\n");
        assert_eq!((limiter.stats().running, unread.kernel_report), (0, KernelReport::Nothing));
    }

    #[test]
    fn a_wait_ends_when_the_reader_goes_and_when_there_is_input() {
        let limiter = limiter();
        let (mut input, mut source) = pipes();
        let (reader, writer) = pipes();
        let mut unread = UnreadOutput::new(writer.as_fd());
        source.write_all(b"x").unwrap();
        assert_eq!(unread.wait(Some(input.as_fd()), None).unwrap(), Woken::Input);
        read(&mut input, 1);
        write(&mut unread, &limiter, b"one\n");
        assert_eq!(unread.wait(Some(input.as_fd()), None).unwrap(), Woken::Look, "after a nap");
        drop(reader);
        let error = unread.wait(Some(input.as_fd()), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
