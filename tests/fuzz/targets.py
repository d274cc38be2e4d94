"""All targets, by name."""

from __future__ import annotations

from tests.fuzz.control import Control
from tests.fuzz.decoder import Decoder
from tests.fuzz.events import Events
from tests.fuzz.measure import Target
from tests.fuzz.sessions import Sessions

TARGETS: dict[str, type[Target]] = {cls.name: cls for cls in (Decoder, Control, Sessions, Events)}
