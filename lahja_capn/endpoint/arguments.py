"""Arguments of the public API that are of the wrong kind: told where they are given, with what to write instead."""

from __future__ import annotations

from collections.abc import Collection

from ..binding import BaseEvent, BaseRequestResponseEvent, BroadcastConfig, EventType
from ..binding import event_type as event_type_of
from ..errors import ConfigError
from ..session import Policy
from ..wire.limits import Limits
from .config import ConnectionConfig


def check_policy(policy: Policy | str) -> Policy:
    """Return the policy; its value as a string ("drop_oldest") is one too.

    Raises:
        ConfigError: there is no such policy.
    """
    try:
        return Policy(policy)
    except ValueError:
        raise ConfigError(
            f"There is no policy {policy!r}: wanted one of {', '.join(f'Policy.{each.name}' for each in Policy)}.",
            policy=policy,
        ) from None


def check_limits(limits: Limits | None) -> Limits:
    """Return the limits, the defaults for None. Raises ConfigError for anything else."""
    if limits is None:
        return Limits()
    if not isinstance(limits, Limits):
        raise ConfigError(f"limits is a Limits, such as Limits(frame_bytes=2**20), got {limits!r}")
    return limits


def check_seconds(name: str, seconds: object) -> float:
    """Return a number of seconds above 0. Raises ConfigError for anything else."""
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds > 0:
        return seconds
    raise ConfigError(f"{name} is a number of seconds above 0, got {seconds!r}")


def check_uids(uids: object) -> frozenset[int] | None:
    """Return numbers of users, None for None. Raises ConfigError for anything else, most often a name."""
    if uids is None:
        return None
    if isinstance(uids, Collection) and not isinstance(uids, (str, bytes)):
        found = frozenset(uids)
        if found and all(type(uid) is int and 0 <= uid < 2**32 for uid in found):
            return found
    raise ConfigError(f"allowed_uids are numbers of users, such as {{os.getuid(), 0}}, got {uids!r}")


def check_connection_config(config: object) -> ConnectionConfig:
    """Return the config. Raises TypeError for anything else, most often a name alone."""
    if not isinstance(config, ConnectionConfig):
        raise TypeError(
            f"wanted a ConnectionConfig, which has a name and a path, got {config!r}: write "
            'ConnectionConfig.from_name("name", base_path=folder)'
        )
    return config


def check_broadcast_config(config: object) -> None:
    """Raises TypeError for what is no BroadcastConfig, most often the name of an endpoint."""
    if config is not None and not isinstance(config, BroadcastConfig):
        raise TypeError(
            f"wanted a BroadcastConfig, got {config!r}: to send to one endpoint write "
            'BroadcastConfig(filter_endpoint="name")'
        )


def check_event(event: BaseEvent, method: str) -> EventType:
    """Return the event's type. Raises TypeError for a class: an event of it was meant; BindError if it is not bound."""
    event_type: EventType | None = getattr(event, "_event_type", None)
    if event_type is not None and event_type.event_class is type(event):
        return event_type
    # Not bound, or only its base class is.
    if isinstance(event, type):
        raise TypeError(
            f"{method}() takes an event, got the class {event.__qualname__}: write {event.__qualname__}(...)"
        )
    return event_type_of(event)


def check_event_class(event_type: object, method: str) -> None:
    """Raises TypeError for an event: its class was meant."""
    if isinstance(event_type, BaseEvent):
        name = type(event_type).__qualname__
        raise TypeError(
            f"{method}() takes an event class, got an event of {name}: write {method}({name}, ...)"
        )


def check_answerable(request: object) -> None:
    """Raises TypeError or ValueError for what nobody can be answered about."""
    if not isinstance(request, BaseRequestResponseEvent):
        raise TypeError(
            f"respond() takes the request first and its response second, got {type(request).__qualname__} first"
        )
    if not request.is_bound:
        raise ValueError(
            f"this {type(request).__qualname__} was never received, so nobody waits for its response: answer the event "
            "that a handler or a stream gave you"
        )
