"""The states of a connection and every transition between them, in tables.

A connection is two halves, what we send and what the peer sends, and both obey the same table: this file does
not know which side we are, nor who connected. docs/wire.md section 4 draws the table; change them together.

::

    OPENING    -- hello ---------------> INTRODUCED
    INTRODUCED -- first subscriptions -> ACTIVE        declare, ping, pong leave it INTRODUCED
    ACTIVE     -- anything but hello --> ACTIVE
    any        -- goodbye -------------> ENDED         nothing follows; what does is discarded
"""

from __future__ import annotations

from enum import Enum

from ..errors import LocalProtocolError


class State(Enum):
    """Where the connection as a whole stands, for its owner."""

    HANDSHAKE = "handshake"
    # Both sides' first subscriptions have passed: events may be sent and received.
    UP = "up"
    # We said goodbye: nothing more is sent, what comes is read and discarded until the end of the stream.
    CLOSING = "closing"
    CLOSED = "closed"


class Half(Enum):
    """How far one direction of a connection has come."""

    OPENING = "opening"
    INTRODUCED = "introduced"
    ACTIVE = "active"
    ENDED = "ended"


class Message(Enum):
    """Everything that can pass. The values of control messages are their names in wire.capnp."""

    HELLO = "hello"
    DECLARE = "declare"
    SUBSCRIPTIONS = "subscriptions"
    SUBSCRIPTIONS_ACK = "subscriptionsAck"
    CREDIT = "credit"
    FAILED = "failed"
    PING = "ping"
    PONG = "pong"
    DROPPED = "dropped"
    GOODBYE = "goodbye"
    # An event, request or response.
    CONTENT = "content"


TRANSITIONS: dict[Half, dict[Message, Half]] = {
    Half.OPENING: {
        Message.HELLO: Half.INTRODUCED,
        Message.GOODBYE: Half.ENDED,
    },
    Half.INTRODUCED: {
        Message.DECLARE: Half.INTRODUCED,
        Message.SUBSCRIPTIONS: Half.ACTIVE,
        Message.PING: Half.INTRODUCED,
        Message.PONG: Half.INTRODUCED,
        Message.GOODBYE: Half.ENDED,
    },
    Half.ACTIVE: {
        Message.DECLARE: Half.ACTIVE,
        Message.SUBSCRIPTIONS: Half.ACTIVE,
        Message.SUBSCRIPTIONS_ACK: Half.ACTIVE,
        Message.CREDIT: Half.ACTIVE,
        Message.FAILED: Half.ACTIVE,
        Message.PING: Half.ACTIVE,
        Message.PONG: Half.ACTIVE,
        Message.DROPPED: Half.ACTIVE,
        Message.GOODBYE: Half.ENDED,
        Message.CONTENT: Half.ACTIVE,
    },
    Half.ENDED: {},
}


def advance(half: Half, message: Message) -> Half:
    """Return the half's state after ``message`` has passed.

    Raises:
        LocalProtocolError: it may not pass now. Where the message came from the peer, the session turns this
            into a RemoteProtocolError: the table does not know whose half it is.
    """
    after = TRANSITIONS[half].get(message)
    if after is None:
        allowed = ", ".join(m.value for m in TRANSITIONS[half]) or "nothing"
        raise LocalProtocolError(f"{message.value} while {half.value}: allowed are {allowed}")
    return after
