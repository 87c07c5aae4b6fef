# Each target sets up all it needs in .venv; nothing has to be installed or active before.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin

.PHONY: demo test test-compiled dist lint types format clean soak fuzz \
	bench bench-micro bench-instructions bench-scale bench-memory bench-neighbours bench-nats demo-cluster

SECONDS ?= 600

demo: .venv/installed
	@$(BIN)/python -m examples.demo

# A cluster of NATS under load, of which a node and a responder are killed.
demo-cluster: .venv/installed-demo
	@$(BIN)/python -m examples.cluster

test: lint types
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term

# From a copy of all but the package, so that what is imported is what was installed.
test-compiled: .venv-compiled/installed
	rm -rf build/compiled
	mkdir -p build/compiled
	cp -R tests examples benchmarks fuzz docs *.md *.py Makefile mypy.ini pyproject.toml build/compiled
	cd build/compiled && TYPED_AMP_COMPILED=1 ../../.venv-compiled/bin/python -m pytest -n 2

# A source distribution, and a wheel: compiled if there is a C compiler.
dist: .venv/installed-dev
	$(BIN)/python -m build

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/mypy
	$(BIN)/basedpyright
	PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright --verifytypes typed_amp --ignoreexternal | tail -n 4
	@PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright --verifytypes typed_amp --ignoreexternal >/dev/null

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# make bench OPTIONS="--work list --in-flight 1 100 --json build/bench.json"
bench: .venv/installed-bench
	@$(BIN)/python -m benchmarks $(OPTIONS)

# make bench-micro OPTIONS="--work list rows"
bench-micro: .venv/installed-dev
	@$(BIN)/python -m benchmarks.micro $(OPTIONS)

# make bench-instructions OPTIONS="--against build/before.json"
bench-instructions: .venv/installed-dev
	@$(BIN)/python -m benchmarks.instructions $(OPTIONS)

# make bench-scale OPTIONS="--only memory"
bench-scale: .venv/installed-dev
	@$(BIN)/python -m benchmarks.scale $(OPTIONS)

# make bench-memory OPTIONS="--only idle --markdown"
bench-memory: .venv/installed-dev
	@$(BIN)/python -m benchmarks.memory $(OPTIONS)

bench-neighbours: .venv/installed-dev
	@$(BIN)/python -m benchmarks.neighbours $(OPTIONS)

# make bench-nats OPTIONS="--in-flight 1 10 100"
bench-nats: .venv/installed-dev
	@$(BIN)/python -m benchmarks.nats $(OPTIONS)

# make soak SECONDS=60
soak: .venv/installed-dev
	@$(BIN)/python -m benchmarks.soak --seconds $(SECONDS) $(OPTIONS)

# make fuzz SECONDS=60 TARGETS="reader served"
fuzz: .venv/installed-fuzz
	@$(BIN)/python -m fuzz --seconds $(SECONDS) $(TARGETS)

clean:
	rm -rf build dist .venv .venv-compiled .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; name it: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	TYPED_AMP_PURE=1 $(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml
	TYPED_AMP_PURE=1 $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/installed

.venv/installed-demo: .venv/bin/python pyproject.toml
	TYPED_AMP_PURE=1 $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@ .venv/installed

.venv/installed-bench: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@ .venv/installed .venv/installed-dev

.venv/installed-fuzz: .venv/bin/python pyproject.toml
	TYPED_AMP_PURE=1 $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,fuzz]'
	@touch $@ .venv/installed .venv/installed-dev

.venv-compiled/installed: .venv/bin/python pyproject.toml hatch_build.py $(wildcard typed_amp/*.py)
	$(BIN)/python -m venv .venv-compiled
	TYPED_AMP_COMPILED=1 .venv-compiled/bin/pip install --quiet --disable-pip-version-check '.[dev]'
	@touch $@
