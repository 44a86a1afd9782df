"""The native half: see the docstrings of the classes themselves, by help()."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
)
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal, TypeVar, final, overload

from typing_extensions import ParamSpec, TypeAlias, disjoint_base

# A timedelta, a number of seconds, or a text such as "1m".
_Time: TypeAlias = timedelta | float | str

_P = ParamSpec("_P")
_T = TypeVar("_T")
_I = TypeVar("_I")

__all__ = [
    "Aborted",
    "Answer",
    "Closed",
    "DeadlineExceeded",
    "Event",
    "Held",
    "Permit",
    "QueueFull",
    "RateLimiter",
    "RateLimiterError",
    "Stats",
    "Usage",
    "WeightedRateLimiter",
    "WouldDeadlock",
    "__version__",
    "read_answer",
    "used_before",
]

__version__: str

class RateLimiterError(RuntimeError): ...
class Closed(RateLimiterError): ...
class Aborted(Closed): ...
class QueueFull(RateLimiterError): ...
class WouldDeadlock(RateLimiterError): ...

class DeadlineExceeded(RateLimiterError, TimeoutError):
    next_opening: float | None

@disjoint_base
class RateLimiter:
    def __init__(
        self,
        rate: int | None = None,
        per_ns: int | timedelta | None = None,
        *,
        per: _Time | None = None,
        limits: Iterable[str] = (),
        concurrency: int = 1,
        paced: bool = False,
        queue_capacity: int | None = None,
        refuse_when_full: bool = False,
        abandon_grace: _Time | None = None,
        clock_drift_ppm: int = 0,
        max_pause: _Time | None = None,
        on_error: Callable[[BaseException], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        clock: Callable[[], int] | None = None,
        name: str | None = None,
        history: Iterable[tuple[int, int, int]] | None = None,
    ) -> None: ...
    def __del__(self) -> None: ...
    def push(
        self,
        task: Callable[[], object],
        estimated_weight: int = 1,
        *,
        timeout: _Time | None = None,
    ) -> Coroutine[Any, Any, bool]: ...
    @overload
    def run(
        self,
        task: Callable[..., Awaitable[_T]],
        /,
        *args: Any,
        weight: int = 1,
        timeout: _Time | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, _T]: ...
    @overload
    def run(
        self,
        task: Callable[..., _T],
        /,
        *args: Any,
        weight: int = 1,
        timeout: _Time | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, _T]: ...
    def acquire(
        self, weight: int = 1, *, timeout: _Time | None = None
    ) -> Coroutine[Any, Any, Permit]: ...
    def acquire_blocking(self, weight: int = 1, *, timeout: _Time | None = None) -> Permit: ...
    def try_acquire(self, weight: int = 1) -> Permit | None: ...
    def weight(self, weight: int, /, *, timeout: _Time | None = None) -> Permit: ...
    def __aenter__(self) -> Coroutine[Any, Any, None]: ...
    def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> Awaitable[None]: ...
    def __enter__(self) -> None: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    @overload
    def __call__(
        self,
        function: Callable[_P, _T],
        /,
        *,
        weight: int = 1,
        timeout: _Time | None = None,
    ) -> Callable[_P, _T]: ...
    @overload
    def __call__(
        self, function: None = None, /, *, weight: int = 1, timeout: _Time | None = None
    ) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]: ...
    @overload
    def map(
        self,
        function: Callable[[_I], Awaitable[_T]],
        inputs: Iterable[_I] | AsyncIterable[_I],
        *,
        in_order: bool = True,
        weight: int | Callable[[_I], int] = 1,
        return_exceptions: bool = False,
        on_progress: Callable[[int, int | None], object] | None = None,
        max_in_flight: int | None = None,
    ) -> AsyncGenerator[_T]: ...
    @overload
    def map(
        self,
        function: Callable[[_I], _T],
        inputs: Iterable[_I] | AsyncIterable[_I],
        *,
        in_order: bool = True,
        weight: int | Callable[[_I], int] = 1,
        return_exceptions: bool = False,
        on_progress: Callable[[int, int | None], object] | None = None,
        max_in_flight: int | None = None,
    ) -> AsyncGenerator[_T]: ...
    @overload
    def gather(
        self,
        function: Callable[[_I], Awaitable[_T]],
        inputs: Iterable[_I] | AsyncIterable[_I],
        *,
        weight: int | Callable[[_I], int] = 1,
        return_exceptions: bool = False,
        on_progress: Callable[[int, int | None], object] | None = None,
        max_in_flight: int | None = None,
    ) -> Coroutine[Any, Any, list[_T]]: ...
    @overload
    def gather(
        self,
        function: Callable[[_I], _T],
        inputs: Iterable[_I] | AsyncIterable[_I],
        *,
        weight: int | Callable[[_I], int] = 1,
        return_exceptions: bool = False,
        on_progress: Callable[[int, int | None], object] | None = None,
        max_in_flight: int | None = None,
    ) -> Coroutine[Any, Any, list[_T]]: ...
    def pause_until(self, when: float | datetime) -> None: ...
    def pause_for(self, pause: _Time) -> None: ...
    def resume(self) -> None: ...
    def paused_for(self) -> float: ...
    def backoff(self) -> float: ...
    def reconcile(self, limit: str, used: int) -> int: ...
    def set_limits(self, limits: Iterable[str]) -> None: ...
    def set_concurrency(self, concurrency: int) -> None: ...
    def history(self) -> list[tuple[int, int, int]]: ...
    def is_like_new(self) -> bool: ...
    def bandwidth_available(self, weight: int = 1) -> bool: ...
    def close(self) -> None: ...
    def drained(self, *, timeout: _Time | None = None) -> Coroutine[Any, Any, None]: ...
    def aclose(self) -> Coroutine[Any, Any, None]: ...
    def abort(self) -> list[Callable[[], object]]: ...
    def stats(self) -> Stats: ...
    @property
    def closed(self) -> bool: ...
    @property
    def limits(self) -> list[str]: ...
    @property
    def rate(self) -> int: ...
    @property
    def per_ns(self) -> int: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def name(self) -> str | None: ...

@disjoint_base
class WeightedRateLimiter(RateLimiter):
    def __init__(
        self,
        allowed_weight: int,
        per_ns: int | timedelta | None = None,
        *,
        per: _Time | None = None,
        limits: Iterable[str] = (),
        concurrency: int = 1,
        paced: bool = False,
        queue_capacity: int | None = None,
        refuse_when_full: bool = False,
        abandon_grace: _Time | None = None,
        clock_drift_ppm: int = 0,
        max_pause: _Time | None = None,
        on_error: Callable[[BaseException], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        clock: Callable[[], int] | None = None,
        name: str | None = None,
        history: Iterable[tuple[int, int, int]] | None = None,
    ) -> None: ...
    @property
    def allowed_weight(self) -> int: ...

@final
class Permit:
    actual: int | None
    @property
    def weight(self) -> int: ...
    @property
    def excess(self) -> int: ...
    @property
    def held(self) -> bool: ...
    def __del__(self) -> None: ...
    def complete(self, actual: int | None = None) -> int: ...
    def release_unused(self) -> None: ...
    def __enter__(self) -> Permit: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, Permit]: ...
    def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> Awaitable[None]: ...

@final
class Stats:
    @property
    def running(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def completed(self) -> int: ...
    @property
    def held(self) -> list[Held]: ...
    @property
    def next_opening(self) -> float | None: ...

@final
class Held:
    @property
    def limit(self) -> str: ...
    @property
    def rate(self) -> int: ...
    @property
    def per_ns(self) -> int: ...
    @property
    def units(self) -> int: ...

@final
class Event:
    @property
    def kind(
        self,
    ) -> Literal[
        "queued", "left", "granted", "completed", "abandoned", "unused", "paused", "resumed"
    ]: ...
    @property
    def limiter(self) -> RateLimiter: ...
    @property
    def id(self) -> int | None: ...
    @property
    def weight(self) -> int | None: ...
    @property
    def waited(self) -> float | None: ...
    @property
    def took(self) -> float | None: ...
    @property
    def excess(self) -> int: ...
    @property
    def pause(self) -> float | None: ...
    @property
    def running(self) -> int: ...
    @property
    def queued(self) -> int: ...

@final
class Usage:
    @property
    def name(self) -> str | None: ...
    @property
    def window(self) -> float | None: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def used(self) -> int | None: ...
    @property
    def remaining(self) -> int | None: ...
    @property
    def reset(self) -> float | None: ...

@final
class Answer:
    @property
    def wait(self) -> float | None: ...
    @property
    def header(self) -> str | None: ...
    @property
    def is_unstated(self) -> bool: ...
    @property
    def usages(self) -> list[Usage]: ...
    def pause(self, backoff: Callable[[], float]) -> tuple[float, str] | None: ...
    def used_before(self, header: str, counts: str, limit: str, weight: int) -> int | None: ...

def read_answer(
    status: int,
    headers: Iterable[tuple[str, str]],
    now: float,
    statuses: Iterable[int] | None = None,
    used_up: bool = True,
) -> Answer: ...
def used_before(limit: str, used: int, weight: int) -> int: ...
