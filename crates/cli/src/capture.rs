//! Reading what a command writes, through pipes, into the spool.
//!
//! Through pipes and not into a file of its own: what is read cannot be written over or cut off by
//! anyone, a command may open `/dev/stdout` and `/dev/stderr`, and a full disk is our error and not the
//! error of every command. What a command had written when it ended is in the pipe by then, so no end of
//! file has to be waited for: that would only come with the end of what it left in the background.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::ioctl_fionread;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::task::JoinHandle;

use crate::ordered_output::TaskOutput;
use crate::spool::{Spool, Spooled};

/// How much is read at once, on the stack.
const AT_ONCE: usize = 16 * 1024;

/// So many pipes are read on after their command has ended, for what it left in the background.
const LEFT_OPEN_MAX: usize = 64;

/// The pipes of a command that runs.
pub(crate) struct Capture<'a> {
    spool: &'a RefCell<Spool>,
    stdout: CapturedPipe<ChildStdout>,
    stderr: CapturedPipe<ChildStderr>,
}

struct CapturedPipe<R> {
    reader: R,
    ended: bool,
}

impl<'a> Capture<'a> {
    /// The pipes of a command that was started with them.
    pub(crate) fn new(child: &mut Child, spool: &'a RefCell<Spool>) -> Option<Self> {
        let stdout = CapturedPipe { reader: child.stdout.take()?, ended: false };
        let stderr = CapturedPipe { reader: child.stderr.take()?, ended: false };
        Some(Self { spool, stdout, stderr })
    }

    /// Keeps what comes, until both pipes have ended.
    pub(crate) async fn keep(&mut self, output: &mut TaskOutput) {
        poll_fn(|context| {
            let stdout = self.stdout.poll(context, &mut output.stdout, self.spool);
            let stderr = self.stderr.poll(context, &mut output.stderr, self.spool);
            if stdout.is_ready() && stderr.is_ready() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Keeps what the command had written when it ended. What still has the pipes open writes for
    /// nobody from now on.
    pub(crate) fn end(self, output: &mut TaskOutput, background_pipes: &BackgroundPipes) {
        self.stdout.end(&mut output.stdout, self.spool, background_pipes);
        self.stderr.end(&mut output.stderr, self.spool, background_pipes);
    }
}

impl<R: AsyncRead + AsFd + Unpin + 'static> CapturedPipe<R> {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        kept: &mut Spooled,
        spool: &RefCell<Spool>,
    ) -> Poll<()> {
        // On the stack only while it is used: a command that runs costs no buffer.
        let mut buffer = [0; AT_ONCE];
        while !self.ended {
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.reader).poll_read(context, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    spool.borrow_mut().keep(kept, read.filled());
                }
                // No error is known that a pipe could have; if it has one, nothing more comes.
                Poll::Ready(_) => self.ended = true,
            }
        }
        Poll::Ready(())
    }

    fn end(
        mut self,
        kept: &mut Spooled,
        spool: &RefCell<Spool>,
        background_pipes: &BackgroundPipes,
    ) {
        let mut buffer = [0; AT_ONCE];
        // What comes from now on, if somebody goes on writing, is not the command's.
        let mut left = ioctl_fionread(&self.reader).unwrap_or(0);
        while !self.ended && left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match rustix::io::read(&self.reader, &mut buffer[..wanted]) {
                Ok(length @ 1..) => {
                    left -= length as u64;
                    spool.borrow_mut().keep(kept, &buffer[..length]);
                }
                _ => self.ended = true,
            }
        }
        let is_open = !self.ended && rustix::io::read(&self.reader, &mut buffer) != Ok(0);
        if is_open {
            background_pipes.discard(self.reader);
        }
    }
}

/// The pipes that a command left to what it started in the background. What comes there is discarded:
/// to close the pipe would kill whoever writes to it. Only the last [`LEFT_OPEN_MAX`] are kept open.
#[derive(Debug, Default)]
pub(crate) struct BackgroundPipes(RefCell<VecDeque<JoinHandle<()>>>);

impl BackgroundPipes {
    fn discard(&self, mut reader: impl AsyncRead + Unpin + 'static) {
        let until_it_ends = poll_fn(move |context| {
            let mut buffer = [0; AT_ONCE];
            loop {
                let mut read = ReadBuf::new(&mut buffer);
                match Pin::new(&mut reader).poll_read(context, &mut read) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                }
            }
        });
        let mut open = self.0.borrow_mut();
        open.retain(|pipe| !pipe.is_finished());
        if open.len() == LEFT_OPEN_MAX {
            open.pop_front().inspect(JoinHandle::abort);
        }
        open.push_back(tokio::task::spawn_local(until_it_ends));
    }

    /// Gives their descriptors back.
    pub(crate) fn close_all(&self) {
        self.0.borrow_mut().drain(..).for_each(|pipe| pipe.abort());
    }
}
