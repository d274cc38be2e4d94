from __future__ import annotations

import pytest

from lahja_capn.errors import LocalProtocolError
from lahja_capn.session.state import TRANSITIONS, Half, Message, advance

# docs/wire.md section 4, written down a second time.
ALLOWED = {
    Half.OPENING: {"hello": "introduced", "goodbye": "ended"},
    Half.INTRODUCED: {
        "declare": "introduced",
        "ping": "introduced",
        "pong": "introduced",
        "subscriptions": "active",
        "goodbye": "ended",
    },
    Half.ACTIVE: {
        "declare": "active",
        "subscriptions": "active",
        "subscriptionsAck": "active",
        "credit": "active",
        "failed": "active",
        "ping": "active",
        "pong": "active",
        "dropped": "active",
        "content": "active",
        "goodbye": "ended",
    },
    Half.ENDED: {},
}


@pytest.mark.parametrize("half", Half)
@pytest.mark.parametrize("message", Message)
def test_each_message_in_each_state_is_allowed_or_refused_as_documented(half: Half, message: Message) -> None:
    expected = ALLOWED[half].get(message.value)
    if expected is None:
        with pytest.raises(LocalProtocolError, match=f"{message.value} while {half.value}"):
            advance(half, message)
    else:
        assert advance(half, message) is Half(expected)


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(Half)
