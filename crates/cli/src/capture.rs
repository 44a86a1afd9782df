//! Reads a command's output through pipes into the spool.
//!
//! Pipes rather than a file for each command: no other process can overwrite or truncate what we have read, a
//! command can open `/dev/stdout` and `/dev/stderr`, and a full disk is one error of ours instead of an error
//! in every command. When a command ends, all its output is in the pipe, so the reader does not wait for the
//! end of file: background processes of the command could delay it for ever.

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

/// The bytes of one read, on the stack.
const AT_ONCE: usize = 16 * 1024;

/// The number of pipes that stay open after their command has ended, for its background processes.
const LEFT_OPEN_MAX: usize = 64;

/// The output pipes of a running command.
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
    /// Takes the pipes of a command that was started with piped output.
    pub(crate) fn new(child: &mut Child, spool: &'a RefCell<Spool>) -> Option<Self> {
        let stdout = CapturedPipe { reader: child.stdout.take()?, ended: false };
        let stderr = CapturedPipe { reader: child.stderr.take()?, ended: false };
        Some(Self { spool, stdout, stderr })
    }

    /// Reads both pipes into the spool until both have ended.
    pub(crate) async fn keep(&mut self, output: &mut TaskOutput) {
        poll_fn(|context| {
            let stdout = self.stdout.poll(context, &mut output.stdout, self.spool);
            let stderr = self.stderr.poll(context, &mut output.stderr, self.spool);
            if stdout.is_ready() && stderr.is_ready() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Reads the rest of what the command had written when it ended. What its background processes write later
    /// is discarded.
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
        // On the stack only during a read, so that a running command needs no buffer of its own.
        let mut buffer = [0; AT_ONCE];
        while !self.ended {
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.reader).poll_read(context, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    spool.borrow_mut().keep(kept, read.filled());
                }
                // We know of no error that a pipe read can give. One would end the pipe.
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
        // Background processes wrote what comes after this, not the command.
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

/// The pipes that background processes of ended commands still hold. Their output is read and discarded:
/// closing the pipe would kill its writers with SIGPIPE. Only the last [`LEFT_OPEN_MAX`] stay open.
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

    /// Closes all of them.
    pub(crate) fn close_all(&self) {
        self.0.borrow_mut().drain(..).for_each(|pipe| pipe.abort());
    }
}
