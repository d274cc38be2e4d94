"""Where endpoints are found, and what they are called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import ConfigError, InvalidEndpointName
from ..session.names import is_endpoint_name


def check_endpoint_name(name: object) -> str:
    """Return ``name`` if an endpoint may have it.

    Raises:
        InvalidEndpointName: it may not; the message says what is allowed.
    """
    if not isinstance(name, str) or not is_endpoint_name(name):
        raise InvalidEndpointName(
            f"{name!r} is no endpoint name: wanted 1 to 100 of the characters A-Z a-z 0-9 . _ - with a letter or "
            "digit first, because a name is also a file name. Choose another.",
            name=name,
        )
    return name


@dataclass(frozen=True, slots=True)
class TLS:
    """The certificate that an endpoint shows, and whose certificates it accepts. PEM files.

    Attributes:
        certificate: this endpoint's certificate, followed by those between it and its authority.
        key: its private key, without a password.
        authorities: certificates of the authorities; a peer whose certificate none of them issued is refused.
        server_name: the name that the served endpoint's certificate must have; by default the host of the URL. Only
            the connecting side looks at it.
    """

    certificate: Path | str
    key: Path | str
    authorities: Path | str
    server_name: str | None = None


class ConnectionConfig(NamedTuple):
    """An endpoint's name and where it is served: the path of its socket file, or a URL.

    Both sides use the same one: ``serve(config)`` binds there, ``connect_to_endpoints(config)`` connects. Made by
    :meth:`from_name` and :meth:`from_url`; ``path`` means nothing where there is a ``url``.
    """

    name: str
    path: Path
    url: str = ""
    tls: TLS | None = None
    plaintext: bool = False

    @classmethod
    def from_name(cls, name: str, base_path: Path | str | None = None) -> ConnectionConfig:
        """``base_path/<name>.ipc``, in the current folder if no ``base_path`` is given.

        Raises:
            InvalidEndpointName: ``name`` cannot be an endpoint's name.
            TypeError: ``base_path`` is no folder.
        """
        check_endpoint_name(name)
        if base_path is None:
            return cls(name=name, path=Path(f"{name}.ipc"))
        folder = Path(base_path)
        if not folder.is_dir():
            raise TypeError(
                f"base_path must be an existing folder, got {os.fspath(base_path)!r}: make it first, closed to "
                "other users (mode 0700)"
            )
        return cls(name=name, path=folder / f"{name}.ipc")

    @classmethod
    def from_url(
        cls, name: str, url: str, *, tls: TLS | None = None, plaintext: bool = False
    ) -> ConnectionConfig:
        """``tcp://host:port``, under TLS 1.3 with certificates on both sides.

        Each side has a ``tls`` of its own, with its own certificate. Port 0 serves at one that the system chooses;
        ``endpoint.serving_at`` says which.

        Args:
            plaintext: no TLS: anybody who reaches the port can connect, read along and pretend to be anyone. For
                networks that nobody else can reach, such as the loopback interface of a machine with one user.

        Raises:
            InvalidEndpointName: ``name`` cannot be an endpoint's name.
            ConfigError: the URL is none, or there is neither ``tls`` nor ``plaintext``, or both.
        """
        check_endpoint_name(name)
        config = cls(name, Path(), url, tls, plaintext)
        _ = config.host_and_port
        if (tls is None) is not plaintext:
            raise ConfigError(
                f"{url}: give tls=TLS(certificate=, key=, authorities=), or plaintext=True on a network that nobody "
                "else can reach; not both.",
                url=url,
            )
        return config

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The parts of ``url``. Raises ConfigError for any other than ``tcp://host:port``."""
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:
            port = None
        if (
            port is None
            or parts.scheme != "tcp"
            or not parts.hostname
            or "@" in parts.netloc
            or parts.path
            or parts.query
            or parts.fragment
        ):
            raise ConfigError(
                f"{self.url!r} is no address: wanted tcp://host:port with a port of 0 to 65535, for example "
                "tcp://10.0.0.7:4100 or tcp://[::1]:4100",
                url=self.url,
            )
        return parts.hostname, port

    @property
    def where(self) -> str:
        """The address, for messages: the URL, or the absolute path."""
        # Two processes that start in different folders name different files by the same relative path.
        return self.url or os.path.abspath(self.path)
