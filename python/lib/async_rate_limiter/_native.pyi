"""The native half: see the docstrings of the classes themselves, by help()."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar, final, overload

from typing_extensions import ParamSpec, Self, disjoint_base

_P = ParamSpec("_P")
_T = TypeVar("_T")

__all__ = [
    "Aborted",
    "Answer",
    "Closed",
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

@disjoint_base
class RateLimiter:
    def __new__(
        cls,
        rate: int | None = None,
        per_ns: int | timedelta | None = None,
        *,
        per: int | timedelta | None = None,
        limits: Iterable[str] = (),
        concurrency: int = 1,
        paced: bool = False,
        queue_capacity: int | None = None,
        abandon_grace: int | timedelta | None = None,
        clock_drift_ppm: int = 0,
        on_error: Callable[[BaseException], object] | None = None,
        clock: Callable[[], int] | None = None,
    ) -> Self: ...
    def push(
        self, task: Callable[[], object], estimated_weight: int = 1
    ) -> Coroutine[Any, Any, bool]: ...
    @overload
    def run(
        self,
        function: Callable[..., Awaitable[_T]],
        /,
        *args: Any,
        weight: int = 1,
        timeout: float | timedelta | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, _T]: ...
    @overload
    def run(
        self,
        function: Callable[..., _T],
        /,
        *args: Any,
        weight: int = 1,
        timeout: float | timedelta | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, _T]: ...
    def acquire(
        self, *, weight: int = 1, timeout: float | timedelta | None = None
    ) -> Coroutine[Any, Any, Permit]: ...
    def acquire_blocking(
        self, *, weight: int = 1, timeout: float | timedelta | None = None
    ) -> Permit: ...
    def try_acquire(self, *, weight: int = 1) -> Permit | None: ...
    def weight(self, weight: int, /) -> Permit: ...
    def __enter__(self) -> None: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, None]: ...
    def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> Awaitable[None]: ...
    @overload
    def __call__(
        self,
        function: Callable[_P, Coroutine[Any, Any, _T]],
        /,
        *,
        weight: int = 1,
    ) -> Callable[_P, Coroutine[Any, Any, _T]]: ...
    @overload
    def __call__(
        self, function: None = None, /, *, weight: int = 1
    ) -> Callable[
        [Callable[_P, Coroutine[Any, Any, _T]]], Callable[_P, Coroutine[Any, Any, _T]]
    ]: ...
    def pause_until(self, when: float | datetime) -> None: ...
    def pause_for(self, pause: float | timedelta) -> None: ...
    def resume(self) -> None: ...
    def paused_for(self) -> float: ...
    def reconcile(self, limit: str, used: int) -> int: ...
    def backoff(self) -> float: ...
    def is_like_new(self) -> bool: ...
    def close(self) -> None: ...
    def drained(self) -> Coroutine[Any, Any, None]: ...
    def aclose(self) -> Coroutine[Any, Any, None]: ...
    def abort(self) -> list[Callable[[], object]]: ...
    def stats(self) -> Stats: ...
    @property
    def closed(self) -> bool: ...
    @property
    def limits(self) -> list[str]: ...
    @property
    def concurrency(self) -> int: ...

@disjoint_base
class WeightedRateLimiter(RateLimiter):
    def __new__(
        cls,
        allowed_weight: int,
        per_ns: int | timedelta | None = None,
        *,
        per: int | timedelta | None = None,
        limits: Iterable[str] = (),
        concurrency: int = 1,
        paced: bool = False,
        queue_capacity: int | None = None,
        abandon_grace: int | timedelta | None = None,
        clock_drift_ppm: int = 0,
        on_error: Callable[[BaseException], object] | None = None,
        clock: Callable[[], int] | None = None,
    ) -> Self: ...

@final
class Permit:
    actual: int | None
    @property
    def weight(self) -> int: ...
    @property
    def excess(self) -> int: ...
    @property
    def held(self) -> bool: ...
    def complete(self, actual: int | None = None) -> int: ...
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
