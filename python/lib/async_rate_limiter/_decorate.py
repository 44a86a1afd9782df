"""The decorator: ``@limiter`` and ``@limiter(weight=5)``."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Awaitable, Callable, TypeVar

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    from ._native import RateLimiter

    _P = ParamSpec("_P")
    _T = TypeVar("_T")


def limit(limiter: RateLimiter, weight: int) -> Callable[..., Any]:
    """A decorator that limits a function, each call of this weight."""
    return functools.partial(limited, limiter, weight)


def limited(
    limiter: RateLimiter, weight: int, function: Callable[_P, Awaitable[_T]]
) -> Callable[_P, Awaitable[_T]]:
    """An async function whose every call waits for its turn."""
    if not inspect.iscoroutinefunction(function):
        raise TypeError(
            f"a limiter decorates async functions, and {function!r} is none; push or run it instead"
        )

    @functools.wraps(function)
    async def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await limiter.run(functools.partial(function, *args, **kwargs), weight)

    return call
