"""The run-time checker of types and shapes, behind jaxtyping's import hook.

By itself, jaxtyping compiles two stand-ins of every function, for arguments and for results, and
binds arguments at every call, which took a third of the tests' time. One wrapper by beartype checks
the same; what has shapes is called with a memory of the sizes of its dimensions.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

# An int passes for a float, as in mypy.
check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))
_jaxtyped = jaxtyping.jaxtyped


def jaxtyped(fn: Any = None, *, typechecker: Any) -> Any:
    """Take the place of `jaxtyping.jaxtyped` for what is imported through its hook."""
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    annotations = list(getattr(fn, "__annotations__", {}).values())
    text = " ".join(map(str, annotations))
    is_plain = inspect.isfunction(fn) and not inspect.isgeneratorfunction(fn)
    has_names = any(isinstance(hint, str) for hint in annotations)  # perhaps of later classes
    if not is_plain or has_names or "{" in text:  # a size that is computed from an argument
        return _jaxtyped(fn, typechecker=typechecker)
    return _checked(fn, has_shapes="jaxtyping." in text)


def _checked(fn: Callable[..., Any], *, has_shapes: bool) -> Callable[..., Any]:
    checked = check(fn)

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return fn(*args, **kwargs)
        if not has_shapes:
            return checked(*args, **kwargs)
        with _jaxtyped("context"):
            return checked(*args, **kwargs)

    return call


def install(package: str) -> None:
    """Check a package, which must not have been imported yet."""
    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook(package, f"{__name__}.check")
