"""The systems that are compared, one module each.

A module ``NAME_system.py`` adds the system NAME. It needs no change elsewhere, and defines:

``REQUIREMENTS``
    A list of literal strings, what pip installs into an environment of its own; ``[]`` means the project's
    own environment. It is read without importing the module.
``KINDS``
    Optional: a list of literal strings, the kinds of cases (``small``, ``large``, ``requests``) that it takes
    part in, if not in all. Read in the same way.
``versions() -> dict[str, str]``
    What was measured, for the report.
``consume(job, link)`` and ``publish(job, link)``
    The two ends of the cases with events: plain functions, each the main function of a process.
``respond(job, link)`` and ``ask(job, link)``
    The two ends of the case with requests.

``job`` is a :class:`benchmarks.workload.Job`, ``link`` a :class:`benchmarks.worker.Link`. What each end does:

- *consume*: listen; ``link.ready()``; take events until the sink is full; ``link.report(sink.facts())``.
- *publish*: connect; wait until all consumers listen; note the time; send ``job.count`` events, each
  constructed from the workload's values; ``link.report({"first": ...})`` with the time before the first send.
- *respond*: listen; ``link.ready()``; answer.
- *ask*: connect; send ``job.count`` requests one after the other; ``link.report(stopwatch.facts())``.
- All, at last: ``link.wait_stop()``, so that nobody leaves while others still receive.

Times are ``time.monotonic()``, which all processes of a machine share on Linux and macOS.
"""
