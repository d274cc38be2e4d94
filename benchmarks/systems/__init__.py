"""The systems that are compared, one module each.

A module ``NAME_system.py`` adds the system NAME. It needs no change elsewhere, and defines:

``REQUIREMENTS``
    A list of literal strings, what pip installs into an environment of its own; ``[]`` means the project's
    own environment. It is read without importing the module.
``KINDS``
    Optional: a list of literal strings, the kinds of cases that it takes part in, if not in all. Read in the same way.
``CASES``
    Optional, likewise: the names of the only cases that it takes part in.
``PROGRAMS``
    Optional, likewise: programs that must be installed, named as their Debian packages. Such a system also defines
    ``serve(job, link)``: become the server, which is started before the others of every run and killed after them.
``versions() -> dict[str, str]``
    What was measured, for the report.
``consume(job, link)`` and ``publish(job, link)``
    The two ends of the cases with events: plain functions, each the main function of a process.
``respond(job, link)`` and ``ask(job, link)``
    The two ends of the case with requests.
``local(job, link)``
    The case within one process.

``job`` is a :class:`benchmarks.workload.Job`, ``link`` a :class:`benchmarks.worker.Link`. What each end does:

- *consume*: listen; ``link.ready()``; take events until the sink is full; ``link.report(sink.facts())``.
- *publish*: ``link.connecting()``; connect; wait until all consumers listen; ``link.go()``, which waits for the other
  producers; note the time; send the events of ``job.numbers``, each constructed from the workload's values;
  ``link.report({"first": ...})`` with the time before the first send.
- *respond*: listen; ``link.ready()``; answer.
- *ask*: connect and ``link.go()`` likewise; send ``job.count`` requests, ``job.in_flight`` at a time;
  ``link.report(stopwatch.facts())``.
- *local*: both in one: ``link.report({**sink.facts(), "first": ...})``.
- All, at last: ``link.wait_stop()``, so that nobody leaves while others still receive.

Events are ``Large`` if ``job.is_large``, else ``Small`` (events.capnp). What differs in some kinds:

- ``selective``: of an event only the number is read: ``sink.selective``.
- ``paced``: events go out when ``bursts(job)`` says, and carry that time as their ``value``.
- ``start``: nothing is sent; ``connect``: few events.
- ``connections``: one process makes ``job.count`` connections to one consumer, and sends one event on each, with the
  connection's place shifted by ``SOURCE_SHIFT`` for its number.
- ``queued``: the consumer is stopped meanwhile; all events are queued in the publisher without waiting, and
  ``link.report`` is called before the queue can drain.

Times are ``time.monotonic()``, which all processes of a machine share on Linux and macOS.
"""
