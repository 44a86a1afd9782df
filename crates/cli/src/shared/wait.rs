//! Waits in a thread for a permit of a shared limit, and sees meanwhile whether the output still has a reader.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use strict_rate_limiter::{AcquireError, Permit, Request};

use crate::stdio;

/// How often the reader is looked for, and a permit asked for again if the queue was full.
const LOOK_EVERY: Duration = Duration::from_millis(100);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a permit. Fails with `BrokenPipe` if the reader of the output goes.
pub(crate) fn acquire<'a>(
    request: impl Fn() -> Request<'a>,
) -> io::Result<Result<Permit<'a>, AcquireError>> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        let mut permit = pin!(request().acquire());
        let permit = loop {
            if let Poll::Ready(permit) = permit.as_mut().poll(&mut context) {
                break permit;
            }
            thread::park_timeout(LOOK_EVERY);
            if stdio::reader_has_gone() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        };
        if permit.as_ref().err() != Some(&AcquireError::Full) {
            return Ok(permit);
        }
        thread::sleep(LOOK_EVERY);
    }
}
