"""Transports: how bytes get from one endpoint to another. Each makes channels and listeners of ``endpoint.needs``."""

from __future__ import annotations

from .choice import Transports

__all__ = ["Transports"]
