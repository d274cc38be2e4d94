"""What the public API does not tell: that each connection came up or ended, and the goodbye that ended it.

``wait_until_connections_change`` may show two changes as one, and nothing public has a goodbye's code. So this one
module overrides two methods that are not public.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lahja_capn import AsyncioEndpoint

Said = Callable[[dict[str, Any]], None]


def watched(endpoint_class: type[AsyncioEndpoint], say: Said) -> type[AsyncioEndpoint]:
    """The endpoint class, saying ``up``, ``down`` and ``refused`` as they happen."""
    up: set[int] = set()

    class Watched(endpoint_class):  # type: ignore[misc, valid-type]
        def on_up(self, connection: Any) -> None:
            super().on_up(connection)
            up.add(connection.serial)
            say({"is": "up", "peer": connection.name})

        def on_closed(self, connection: Any, closed: Any) -> None:
            super().on_closed(connection, closed)
            if connection.serial in up:
                up.remove(connection.serial)
                say({"is": "down", "peer": connection.name, "code": closed.code, "by_peer": closed.by_peer})
            else:
                say({"is": "refused", "code": closed.code})

    return Watched
