# Every target makes its own environment first: a fresh machine needs Python 3.11 or later, and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=
BENCH_ARGS ?=
# matplotlib, which draws the results.
BENCH_EXTRA = '$(BIN)/python' -c 'import matplotlib' 2>/dev/null || \
    '$(BIN)/python' -m pip install --quiet --disable-pip-version-check -e '.[dev,bench]' >&2
MINUTES ?= 10
FUZZ_ARGS ?=
SOAK_ARGS ?=
# `make test PEERS=no` builds no peers: those that are built already take part as they are.
PEERS ?= yes

.DEFAULT_GOAL := help
.PHONY: help demo demo-languages test test-all quick peers peers-all style format types coverage bench bench-quick bench-growth \
    fuzz soak check clean

help:
	@echo 'make demo      several processes exchange events; ends by itself'
	@echo 'make demo-languages   Python, C++, Rust, Go and TypeScript in one conversation'
	@echo 'make test      all tests, measuring coverage    (PYTEST_ARGS="-k word", PEERS=no)'
	@echo 'make test-all  the same, and a language that is missing is a failure'
	@echo 'make quick     the tests without the slow ones'
	@echo 'make peers     the peers in other languages, as far as their tools are here'
	@echo 'make style     ruff, without changing anything  (make format changes)'
	@echo 'make types     mypy --strict'
	@echo 'make coverage  report of the last test run; fails below 95 %'
	@echo 'make bench     this project and others, in turns, 15 minutes (BENCH_ARGS="--quick")'
	@echo 'make bench-quick   is this project still well ahead of lahja 0.17, 1 minute'
	@echo 'make bench-growth  how the cost of an event grows   (BENCH_ARGS="--quick")'
	@echo 'make fuzz      hostile bytes, guided by coverage  (MINUTES=10, FUZZ_ARGS="--target events")'
	@echo 'make soak      load and random faults for a while   (MINUTES=10, SOAK_ARGS="--seed 1")'
	@echo 'make check     style, types, test, coverage'
	@echo 'make clean     removes what the other targets made'

# Installed again when the metadata changes. Everything goes to standard error, so that a target's own output stays clean.
$(STAMP): setup.cfg setup.py pyproject.toml
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "lahja_capn needs Python 3.11 or later, found: $(PYTHON). Try: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setting up $(VENV) (first run, or the metadata changed)" >&2
	@'$(PYTHON)' -m venv '$(VENV)' >&2 || { \
	    echo "No environment could be made; on Debian and Ubuntu install python3-venv." >&2; exit 1; }
	@'$(BIN)/python' -m pip install --quiet --disable-pip-version-check -e '.[dev]' >&2
	@touch '$(STAMP)'

demo: $(STAMP)
	@'$(BIN)/python' examples/demo.py

demo-languages: $(STAMP)
	@'$(BIN)/python' examples/languages/demo.py

# The last lines say which languages were left out, and how to get them.
test: $(STAMP)
	@peers=0; [ '$(PEERS)' = no ] || '$(BIN)/python' peers/languages.py build || peers=1; \
	    '$(BIN)/coverage' erase; \
	    echo "'$(BIN)/coverage' run -m pytest $(PYTEST_ARGS)"; \
	    tests=0; '$(BIN)/coverage' run -m pytest $(PYTEST_ARGS) || tests=$$?; \
	    '$(BIN)/python' peers/languages.py missing; \
	    [ $$peers = 0 ] || echo 'FAILED: a peer could not be built, see the top; `make test PEERS=no` builds none' >&2; \
	    [ $$tests = 0 ] && exit $$peers || exit $$tests

test-all: $(STAMP) peers-all
	@'$(BIN)/coverage' erase
	LANGUAGES_REQUIRED=all '$(BIN)/coverage' run -m pytest $(PYTEST_ARGS)

peers: $(STAMP)
	@'$(BIN)/python' peers/languages.py build

peers-all: $(STAMP)
	@'$(BIN)/python' peers/languages.py build --all

quick: $(STAMP)
	'$(BIN)/python' -m pytest -m 'not slow' $(PYTEST_ARGS)

style: $(STAMP)
	'$(BIN)/ruff' check .
	'$(BIN)/ruff' format --check .

format: $(STAMP)
	'$(BIN)/ruff' check --fix .
	'$(BIN)/ruff' format .

types: $(STAMP)
	'$(BIN)/mypy'

# Reports what `make test` measured, and runs it only if nothing was measured yet.
coverage: $(STAMP)
	@ls .coverage* >/dev/null 2>&1 || $(MAKE) test
	@if ls .coverage.* >/dev/null 2>&1; then '$(BIN)/coverage' combine --quiet; fi
	'$(BIN)/coverage' report

bench: $(STAMP)
	@$(BENCH_EXTRA)
	@'$(BIN)/python' -m benchmarks.run $(BENCH_ARGS)

bench-growth: $(STAMP)
	@$(BENCH_EXTRA)
	@'$(BIN)/python' -m benchmarks.growth $(BENCH_ARGS)

bench-quick: $(STAMP)
	@'$(BIN)/python' -m benchmarks.guard

# Goes on from what earlier runs have left in .fuzz (FUZZ_ARGS="--fresh" does not). Without atheris it is not guided.
fuzz: $(STAMP)
	@'$(BIN)/python' -c 'import atheris' 2>/dev/null || \
	    '$(BIN)/python' -m pip install --quiet --disable-pip-version-check -e '.[dev,fuzz]' >&2 || \
	    echo 'atheris is not to be had here: this run is not guided by coverage' >&2
	@'$(BIN)/python' -m tests.fuzz.run --minutes '$(MINUTES)' $(FUZZ_ARGS)

soak: $(STAMP)
	@'$(BIN)/python' -W error -m tests.soak --minutes '$(MINUTES)' $(SOAK_ARGS)

check:
	$(MAKE) style
	$(MAKE) types
	$(MAKE) test
	$(MAKE) coverage

clean:
	rm -rf '$(VENV)' build dist *.egg-info .coverage .coverage.* htmlcov .mypy_cache .pytest_cache .ruff_cache \
	    .hypothesis .fuzz benchmarks/.venvs
	@for peer in peers/*/Makefile; do [ ! -e "$$peer" ] || $(MAKE) -C "$$(dirname "$$peer")" clean; done
