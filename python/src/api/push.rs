//! `push`: it reads its arguments in place.

use std::ffi::CStr;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::config;
use crate::errors;
use crate::ffi::{self, Arguments, Method};
use crate::operation::{Call, Request};
use crate::state::RateLimiter;

pub(crate) struct Push;

impl Method for Push {
    type Class = RateLimiter;
    const NAME: &'static CStr = c"push";
    const DOC: &'static CStr = c"push($self, task, estimated_weight=1, *, timeout=None)\n--\n
Run a task at once where it may run at once, else leave it to the limiter.

`task` takes no arguments; it is a function, or anything that returns an awaitable.

Awaiting the result gives True if the task ran at once: it has ended, and what it raised is raised
here. It gives False if the task is queued: the limiter runs it in its turn, in this loop and in the
context of this call, and what it raises goes to the loop's exception handler and to `on_error`. With
a `queue_capacity`, a push waits for room in the queue first, for at most `timeout`.

Raises Closed, ValueError for a weight that could never run, TypeError for a task that is not
callable, QueueFull from inside a task of this limiter if there is no room, and DeadlineExceeded.

Cancelled while it waits, it leaves no trace; cancelled while its task runs, it cancels the task,
which counts as its completion.";

    #[inline]
    fn call<'py>(
        limiter: &Bound<'py, RateLimiter>,
        arguments: &Arguments<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let [task, weight, timeout] =
            arguments.by_name("push", 2, ["task", "estimated_weight", "timeout"])?;
        let task = task.ok_or_else(|| {
            PyTypeError::new_err("push() missing 1 required positional argument: 'task'")
        })?;
        if !task.is_callable() {
            return Err(errors::not_callable("task", &task));
        }
        limiter.get().initialised()?;
        let weight = match weight {
            Some(weight) => limiter.get().checked_weight("estimated_weight", &weight)?,
            None => 1,
        };
        let timeout_ns = config::timeout_ns(timeout.as_ref())?;
        let request = Request::Push(task.unbind());
        let limiter = limiter.clone().unbind();
        ffi::new(arguments.py(), Call::New { limiter, weight, timeout_ns, request })
    }
}
