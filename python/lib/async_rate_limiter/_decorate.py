"""The decorator: ``@limiter`` and ``@limiter(weight=5)``."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Awaitable, Callable, TypeVar, cast

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import ParamSpec

    from ._native import RateLimiter

    _P = ParamSpec("_P")
    _T = TypeVar("_T")


def limit(
    limiter: RateLimiter, weight: int, timeout: float | str | timedelta | None
) -> Callable[..., Any]:
    """A decorator that limits a function, each call of this weight."""
    return functools.partial(limited, limiter, weight, timeout)


def limited(
    limiter: RateLimiter,
    weight: int,
    timeout: float | str | timedelta | None,
    function: Callable[_P, _T],
) -> Callable[_P, _T]:
    """The function, each call of which waits for its turn: in its thread if it is not async."""
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(
            f"{function!r} is a generator: its calls return before it runs; "
            "use the limiter inside it"
        )
    if not callable(function):
        raise TypeError(f"a limiter decorates functions, and {function!r} is none")
    if inspect.iscoroutinefunction(function):
        limits_async = _limited_async(limiter, weight, timeout, function)
        return _mark(cast("Callable[_P, _T]", limits_async), limiter)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with limiter.weight(weight, timeout=timeout):
            return function(*args, **kwargs)

    return _mark(call, limiter)


def _mark(function: Callable[_P, _T], limiter: RateLimiter) -> Callable[_P, _T]:
    """Notes by which limiter a function is limited: see `is_limited_by`."""
    vars(function)["_limited_by"] = limiter
    return function


def is_limited_by(limiter: RateLimiter, function: object) -> bool:
    """Whether each call of a function takes a permit of this limiter already."""
    return getattr(function, "_limited_by", None) is limiter


def _limited_async(
    limiter: RateLimiter,
    weight: int,
    timeout: float | str | timedelta | None,
    function: Callable[_P, Awaitable[_T]],
) -> Callable[_P, Awaitable[_T]]:
    @functools.wraps(function)
    async def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        task = functools.partial(function, *args, **kwargs)
        return await limiter.run(task, weight=weight, timeout=timeout)

    return call
