"""Real certificates, made when a test asks for them."""

from __future__ import annotations

import datetime
from pathlib import Path

import trustme

from lahja_capn import TLS


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.path = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.path)

    def issue(
        self,
        name: str,
        *hosts: str,
        trusts: Path | None = None,
        expired: bool = False,
        server_name: str | None = None,
    ) -> TLS:
        """A certificate for ``hosts``, in the files ``name.pem`` and ``name.key``."""
        until = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1) if expired else None
        made = self._ca.issue_cert(*(hosts or (f"{name}.example",)), not_after=until)
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        made.private_key_pem.write_to_path(key)
        certificate.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        return TLS(certificate, key, trusts or self.path, server_name)
