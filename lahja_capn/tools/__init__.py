"""Helpers for tests of programs that use the bus: say what each endpoint does, then run it on any runtime.

::

    from lahja_capn.tools.drivers import driver, serve_endpoint, run_endpoint, wait_for, ...
    from lahja_capn.tools.runner import AsyncioRunner, TrioRunner, IsolatedHomogenousRunner

    server = driver(serve_endpoint(config), wait_for(Ping))
    client = driver(run_endpoint("client"), connect_to_endpoints(config), wait_any_then_broadcast(Ping(n=1)))
    AsyncioRunner()(server, client)                            # both in one event loop
    IsolatedHomogenousRunner(TrioRunner())(server, client)     # each in a process of its own

A *driver* is one endpoint and what it does, a list of *actions*. An *engine* is what a driver needs of
asyncio or of trio. A *runner* runs drivers to their end and raises if one of them failed, wherever it ran.
"""

from __future__ import annotations
