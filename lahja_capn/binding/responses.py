"""Finds the response class of a request from its type argument."""

from __future__ import annotations

import sys
from typing import Any, ForwardRef, TypeVar, get_args, get_origin

from lahja_capn.binding.event import BaseEvent, BaseRequestResponseEvent
from lahja_capn.binding.registry import _classes
from lahja_capn.errors import BindError


def type_argument(cls: type) -> Any:
    """Return what stands in the brackets of ``BaseRequestResponseEvent[...]``, or None."""
    for owner in cls.__mro__:
        for base in owner.__dict__.get("__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, BaseRequestResponseEvent):
                (argument, *_) = get_args(base)
                if not isinstance(argument, TypeVar):
                    return argument
    return None


def has_own_response_type(cls: type) -> bool:
    """Say whether a class overrides ``expected_response_type``."""
    for owner in cls.__mro__:
        if owner is BaseRequestResponseEvent:
            return False
        if "expected_response_type" in owner.__dict__:
            return True
    return False


def response_type(cls: type[BaseEvent]) -> type[BaseEvent]:
    """Return the response class of a request class. Raises BindError."""
    argument = type_argument(cls)
    found = argument
    if isinstance(argument, ForwardRef):
        found = _named(cls, argument.__forward_arg__)
    if isinstance(found, type) and issubclass(found, BaseEvent):
        return found
    raise BindError(
        f"{cls.__qualname__}: the response type {argument!r} is no event class"
        + (" (yet)" if isinstance(argument, ForwardRef) else "")
        + ". Write class Ask(BaseRequestResponseEvent[Answer]), or override expected_response_type().",
        event=cls.__qualname__,
        field=None,
    )


def _named(cls: type, name: str) -> Any:
    """Return what a string type argument means: in the class's module, or a bound class beside it."""
    found: Any = sys.modules.get(cls.__module__)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not None:
        return found
    # A class inside a function or another class has no name in the module; its neighbours have its prefix.
    prefix = cls.__qualname__.rpartition(".")[0]
    for bound in _classes.values():
        if bound.__module__ == cls.__module__ and bound.__qualname__ == (
            f"{prefix}.{name}" if prefix else name
        ):
            return bound
    return None
