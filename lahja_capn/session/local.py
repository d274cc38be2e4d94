"""Who we are and who the peer is: what the two hello messages carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ..errors import ConfigError, InvalidEndpointName
from ..wire.limits import MAX_FEATURES, Limits, check_keepalive
from .names import is_endpoint_name

PROTOCOL_VERSION: Final = 1
INSTANCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEndpoint:
    """What an endpoint says about itself to every peer.

    Raises:
        InvalidEndpointName, ConfigError: a value that no peer would accept.
    """

    name: str
    # Random for each start of an endpoint.
    instance: bytes
    limits: Limits = field(default_factory=Limits)
    # We ping after so many seconds without a byte from the peer; 0 = never.
    keepalive_s: float = 0.0
    implementation: str = "lahja_capn"
    version: str = ""
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_endpoint_name(self.name):
            raise InvalidEndpointName(
                f"{self.name!r} is no endpoint name: wanted [A-Za-z0-9][A-Za-z0-9._-]{{0,99}}", name=self.name
            )
        if len(self.instance) != INSTANCE_BYTES:
            raise ConfigError(f"an instance id has {INSTANCE_BYTES} bytes, got {len(self.instance)}")
        if len(self.features) > MAX_FEATURES:
            raise ConfigError(f"at most {MAX_FEATURES} features, got {len(self.features)}")
        check_keepalive(self.keepalive_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """What a peer's hello said about it."""

    name: str
    instance: bytes
    implementation: str
    version: str
    # The largest frame it accepts from us, bytes.
    frame_limit: int
    # It pings us after so many silent seconds; 0 = never.
    keepalive_s: float
    features: frozenset[str]
