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
        return cast("Callable[_P, _T]", _limited_async(limiter, weight, timeout, function))

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with limiter.weight(weight, timeout=timeout):
            return function(*args, **kwargs)

    return call


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
