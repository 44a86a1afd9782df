"""`map_inputs` and `gather_inputs`: call a function for each of many inputs, under a limiter.

Each input that is read becomes a task of the loop, which waits for its permit by `limiter.run`. At
most `max_in_flight` inputs are read and not yet yielded, so memory is bounded even if the inputs
never end.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sized,
    TypeVar,
    Union,
    overload,
)

from ._decorate import is_limited_by

if TYPE_CHECKING:
    from ._native import RateLimiter

_I = TypeVar("_I")
_T = TypeVar("_T")

#: The inputs: any iterable, sync or async.
Inputs = Union[Iterable[_I], AsyncIterable[_I]]

#: The weight of each call, or a function of the input that gives it.
Weight = Union[int, Callable[[_I], int]]

#: Called when a call has ended, with the number of those that have, and the number of inputs if
#: that is known.
Progress = Callable[[int, Union[int, None]], object]


@overload
def map_inputs(
    limiter: RateLimiter,
    function: Callable[[_I], Awaitable[_T]],
    inputs: Inputs[_I],
    *,
    in_order: bool = True,
    weight: Weight[_I] = 1,
    return_exceptions: bool = False,
    on_progress: Progress | None = None,
    max_in_flight: int | None = None,
) -> AsyncGenerator[_T, None]: ...
@overload
def map_inputs(
    limiter: RateLimiter,
    function: Callable[[_I], _T],
    inputs: Inputs[_I],
    *,
    in_order: bool = True,
    weight: Weight[_I] = 1,
    return_exceptions: bool = False,
    on_progress: Progress | None = None,
    max_in_flight: int | None = None,
) -> AsyncGenerator[_T, None]: ...
def map_inputs(
    limiter: RateLimiter,
    function: Callable[[Any], Any],
    inputs: Inputs[Any],
    *,
    in_order: bool = True,
    weight: Weight[Any] = 1,
    return_exceptions: bool = False,
    on_progress: Progress | None = None,
    max_in_flight: int | None = None,
) -> AsyncGenerator[Any, None]:
    """Call the function for each input under the limiter, and yield the answers.

    The function may be sync or async. `inputs` may be an async iterable, and may never end: at most
    `max_in_flight` of them are read and not yet yielded (by default twice the limiter's
    concurrency, and at most 1,000). The answers come in the order of the inputs or, with
    `in_order=False`, as the calls end. `weight` is that of each call, or a function of the input.

    If a call fails, no more inputs are read. Its exception is raised in the place of its answer,
    and the other calls are cancelled. With `return_exceptions=True` the exception is yielded
    instead, and the others go on. An exception of `inputs` itself is always raised, after the
    answers of the inputs before it.

    `on_progress(done, total)` is called when a call has ended; `total` is None if `inputs` has no
    length. An exception of it counts as the call's own.

    The iterator must be used by one task. When it ends, is closed by `aclose()`, or is dropped
    after a `break`, it cancels the calls that are left and waits for their end. It does not close
    `inputs`.
    """
    calls = _Calls(limiter, function, weight, on_progress, inputs, max_in_flight, return_exceptions)
    return _answers(calls, in_order)


@overload
async def gather_inputs(
    limiter: RateLimiter,
    function: Callable[[_I], Awaitable[_T]],
    inputs: Inputs[_I],
    *,
    weight: Weight[_I] = 1,
    return_exceptions: bool = False,
    on_progress: Progress | None = None,
    max_in_flight: int | None = None,
) -> list[_T]: ...
@overload
async def gather_inputs(
    limiter: RateLimiter,
    function: Callable[[_I], _T],
    inputs: Inputs[_I],
    *,
    weight: Weight[_I] = 1,
    return_exceptions: bool = False,
    on_progress: Progress | None = None,
    max_in_flight: int | None = None,
) -> list[_T]: ...
async def gather_inputs(
    limiter: RateLimiter,
    function: Callable[[Any], Any],
    inputs: Inputs[Any],
    *,
    weight: Weight[Any] = 1,
    return_exceptions: bool = False,
    on_progress: Progress | None = None,
    max_in_flight: int | None = None,
) -> list[Any]:
    """Call the function for each input under the limiter, and return all answers in the order of
    the inputs.

    As `map_inputs`, but the first call that fails, in time, raises its exception at once.
    Cancelled, it cancels the calls and waits for their end.
    """
    calls = _Calls(limiter, function, weight, on_progress, inputs, max_in_flight, return_exceptions)
    answers = _answers(calls, in_order=True, at_once=True)
    try:
        return [answer async for answer in answers]
    finally:
        await answers.aclose()


async def _answers(
    calls: _Calls, in_order: bool, at_once: bool = False
) -> AsyncGenerator[Any, None]:
    try:
        calls.start()
        while True:
            calls.read_now()
            if at_once and calls.failure is not None:
                raise calls.failure
            call = calls.take_ended(in_order)
            if call is None:
                if calls.have_all_ended():
                    break
                await calls.wait()
                continue
            error = _error(call)
            if error is None:
                yield call.result()
            elif calls.return_exceptions:
                yield error
            else:
                raise error
        calls.raise_error_of_inputs()
    finally:
        await calls.cancel()


def _error(call: asyncio.Task[Any]) -> BaseException | None:
    return asyncio.CancelledError() if call.cancelled() else call.exception()


class _Calls:
    """The calls whose inputs were read and whose answers were not yet taken."""

    def __init__(
        self,
        limiter: RateLimiter,
        function: Callable[[Any], Any],
        weight: Weight[Any],
        on_progress: Progress | None,
        inputs: Inputs[Any],
        max_in_flight: int | None,
        return_exceptions: bool,
    ) -> None:
        if max_in_flight is None:
            max_in_flight = min(2 * limiter.concurrency, 1000)
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight {max_in_flight} is out of range: it is at least 1")
        if is_limited_by(limiter, function):
            raise ValueError(
                f"{function!r} is decorated by this limiter: each call would take two permits, "
                "and might wait for itself for ever; give the function inside it"
            )
        self.max_in_flight = max_in_flight
        self.limiter = limiter
        self.function = function
        self.weight = weight
        self.on_progress = on_progress
        self.inputs = inputs
        self.total = len(inputs) if isinstance(inputs, Sized) else None
        self.done = 0
        self.return_exceptions = return_exceptions
        #: The first failure in time, unless failures are answers.
        self.failure: BaseException | None = None
        self.error_of_inputs: BaseException | None = None
        #: In the order of their inputs.
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.ended: deque[asyncio.Task[Any]] = deque()
        #: Sync inputs that are left to read.
        self.iterator: Iterator[Any] | None = None
        #: Reads async inputs: one task for all of them, as an async generator may need.
        self.reader: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Called in the loop, before anything else."""
        self.loop = asyncio.get_running_loop()
        self.changed = asyncio.Event()
        self.has_room = asyncio.Event()
        if isinstance(self.inputs, AsyncIterable):
            self.reader = self.loop.create_task(self._read(self.inputs))
            self.reader.add_done_callback(lambda _: self.changed.set())
        else:
            self.iterator = iter(self.inputs)

    # --- Reading

    def _may_read(self) -> bool:
        return len(self.tasks) < self.max_in_flight and self.failure is None

    def read_now(self) -> None:
        """Read as many inputs as there is room for."""
        self.has_room.set()
        while self.iterator is not None and self._may_read():
            try:
                value = next(self.iterator)
            except StopIteration:
                self.iterator = None
            except Exception as error:
                self.iterator = None
                self.error_of_inputs = error
            else:
                self._begin(value)

    async def _read(self, inputs: AsyncIterable[Any]) -> None:
        try:
            async for value in inputs:
                self._begin(value)
                while not self._may_read():
                    self.has_room.clear()
                    await self.has_room.wait()
        except Exception as error:
            self.error_of_inputs = error

    def _begin(self, value: Any) -> None:
        task = self.loop.create_task(self._call(value))
        self.tasks[task] = None
        task.add_done_callback(self._on_end)

    async def _call(self, value: Any) -> Any:
        try:
            weight = self.weight(value) if callable(self.weight) else self.weight
            answer = await self.limiter.run(functools.partial(self.function, value), weight=weight)
        except Exception:
            self._report()
            raise
        self._report()
        return answer

    def _report(self) -> None:
        self.done += 1
        if self.on_progress is not None:
            self.on_progress(self.done, self.total)

    def _on_end(self, task: asyncio.Task[Any]) -> None:
        self.ended.append(task)
        if self.failure is None and not self.return_exceptions:
            self.failure = _error(task)
        self.changed.set()

    # --- Taking

    def take_ended(self, in_order: bool) -> asyncio.Task[Any] | None:
        """The next call whose answer is to be yielded, if it has ended."""
        if in_order:
            self.ended.clear()
            first = next(iter(self.tasks), None)
            if first is None or not first.done():
                return None
        elif self.ended:
            first = self.ended.popleft()
        else:
            return None
        del self.tasks[first]
        return first

    def have_all_ended(self) -> bool:
        """Whether all inputs were read, and all answers taken."""
        if self.tasks or self.iterator is not None:
            return False
        return self.reader is None or self.reader.done()

    async def wait(self) -> None:
        """Wait until a call has ended, or all inputs were read."""
        self.changed.clear()
        await self.changed.wait()

    def raise_error_of_inputs(self) -> None:
        if self.error_of_inputs is not None:
            raise self.error_of_inputs

    async def cancel(self) -> None:
        """Cancel what is left, and wait for its end."""
        left = list(self.tasks)
        if self.reader is not None:
            left.append(self.reader)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
