"""The driver itself: an initializer and its actions."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..engine import ActionTimeout, Driver, EngineAPI
from .actions import Action, AsyncAction, SyncAction
from .initializers import Initializer

logger = logging.getLogger("lahja_capn.tools.driver")

# More than an action on one machine takes, less than a test's own timeout: so the error names the action.
ACTION_TIMEOUT_S = 5.0


class _Driver:
    """What :func:`driver` returns. A class, because its ``str`` is what a failure report shows."""

    def __init__(self, initializer: Initializer, actions: Sequence[Action], action_timeout: float) -> None:
        for index, action in enumerate(actions):
            _check_action(index, action)
        self.initializer = initializer
        self.actions = tuple(actions)
        self.action_timeout = action_timeout

    def __str__(self) -> str:
        return f"<Driver {' > '.join(map(str, (self.initializer, *self.actions)))}>"

    async def __call__(self, engine: EngineAPI) -> None:
        await drive(engine, self.initializer, self.actions, self.action_timeout)


def driver(initializer: Initializer, *actions: Action, action_timeout: float = ACTION_TIMEOUT_S) -> Driver:
    """One endpoint, made by ``initializer``, that performs ``actions`` in order and then ends.

    Args:
        action_timeout: seconds that each action may take.

    Raises:
        TypeError: one of ``actions`` is not an action.
    """
    return _Driver(initializer, actions, action_timeout)


async def drive(
    engine: EngineAPI,
    initializer: Initializer,
    actions: Sequence[Action],
    action_timeout: float = ACTION_TIMEOUT_S,
) -> None:
    """Make the endpoint, perform ``actions`` on it, end it.

    Raises:
        TimeoutError: an action took longer than ``action_timeout`` seconds.
        Exception: what an action raised, with a note that says which action it was.
    """
    async with initializer(engine) as endpoint:
        for index, action in enumerate(actions):
            _check_action(index, action)
            logger.debug("[%s] action %d: %s", endpoint, index, action)
            try:
                if isinstance(action, AsyncAction):
                    await engine.run_with_timeout(action, engine, endpoint, timeout=action_timeout)
                else:
                    action(engine, endpoint)
            except ActionTimeout as error:
                raise TimeoutError(
                    f"[{endpoint}] action {index}, {action}, did not end within {action_timeout:g} s"
                ) from error
            except Exception as error:
                error.add_note(f"[{endpoint}] in action {index}: {action}")
                raise


def _check_action(index: int, action: object) -> None:
    if not isinstance(action, AsyncAction | SyncAction):
        raise TypeError(
            f"Action {index} of a driver must be a SyncAction or an AsyncAction, such as wait_for(...) "
            f"returns; got {action!r}"
        )
