# Each target sets up all it needs in .venv; nothing has to be installed or active before.
# make test PYTHON=python3.13 does it with that Python, in .venv-python3.13.

VENV := $(if $(filter command line,$(origin PYTHON)),.venv-$(notdir $(PYTHON)),.venv)
COMPILED := $(VENV)-compiled

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := $(VENV)/bin

.PHONY: demo test coverage test-compiled dist lint types format clean soak fuzz \
	bench bench-features bench-micro bench-instructions bench-scale bench-memory bench-neighbours \
	bench-pool bench-nats demo-cluster

SECONDS ?= 600

demo: $(VENV)/installed
	@$(BIN)/python -m examples.demo

# A cluster of NATS under load, of which a node and a responder are killed.
demo-cluster: $(VENV)/installed-demo
	@$(BIN)/python -m examples.cluster

test: lint types
	$(BIN)/python -m pytest -n 2

# Which lines no test runs. Takes half as long again as the tests alone.
coverage: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term

# From a copy of all but the package, so that what is imported is what was installed.
test-compiled: $(COMPILED)/installed
	rm -rf build/compiled
	mkdir -p build/compiled
	cp -R tests examples benchmarks fuzz docs *.md *.py Makefile mypy.ini pyproject.toml build/compiled
	cd build/compiled && TYPED_AMP_COMPILED=1 ../../$(COMPILED)/bin/python -m pytest -n 2

# A source distribution, and a wheel: compiled if there is a C compiler.
dist: $(VENV)/installed-dev
	$(BIN)/python -m build

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright --verifytypes typed_amp --ignoreexternal | tail -n 4
	@PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright --verifytypes typed_amp --ignoreexternal >/dev/null

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# make bench OPTIONS="--work list --in-flight 1 100 --json build/bench.json"
bench: $(VENV)/installed-bench
	@$(BIN)/python -m benchmarks $(OPTIONS)

# make bench-features OPTIONS="--only timeout TLS --instructions"
bench-features: .venv/installed-dev
	@$(BIN)/python -m benchmarks.features $(OPTIONS)

# make bench-micro OPTIONS="--work list rows"
bench-micro: $(VENV)/installed-dev
	@$(BIN)/python -m benchmarks.micro $(OPTIONS)

# make bench-instructions OPTIONS="--against build/before.json"
bench-instructions: $(VENV)/installed-dev
	@$(BIN)/python -m benchmarks.instructions $(OPTIONS)

# make bench-scale OPTIONS="--only memory"
bench-scale: $(VENV)/installed-dev
	@$(BIN)/python -m benchmarks.scale $(OPTIONS)

# make bench-memory OPTIONS="--only idle --markdown"
bench-memory: $(VENV)/installed-dev
	@$(BIN)/python -m benchmarks.memory $(OPTIONS)

bench-neighbours: $(VENV)/installed-dev
	@$(BIN)/python -m benchmarks.neighbours $(OPTIONS)

# make bench-pool OPTIONS="--rounds 9 --in-flight 100"
bench-pool: $(VENV)/installed-dev
	@$(BIN)/python -m benchmarks.pool $(OPTIONS)

# make bench-nats OPTIONS="--in-flight 1 10 100"
bench-nats: $(VENV)/installed-dev
	@$(BIN)/python -m benchmarks.nats $(OPTIONS)

# make soak SECONDS=60
soak: $(VENV)/installed-dev
	@$(BIN)/python -m benchmarks.soak --seconds $(SECONDS) $(OPTIONS)

# make fuzz SECONDS=60 TARGETS="reader served"
fuzz: $(VENV)/installed-fuzz
	@$(BIN)/python -m fuzz --seconds $(SECONDS) $(TARGETS)

clean:
	rm -rf build dist .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; name it: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml
	TYPED_AMP_PURE=1 $(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-dev: $(BIN)/python pyproject.toml
	TYPED_AMP_PURE=1 $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-demo: $(BIN)/python pyproject.toml
	TYPED_AMP_PURE=1 $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-bench: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@ $(VENV)/installed $(VENV)/installed-dev

$(VENV)/installed-fuzz: $(BIN)/python pyproject.toml
	TYPED_AMP_PURE=1 $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,fuzz]'
	@touch $@ $(VENV)/installed $(VENV)/installed-dev

$(COMPILED)/installed: $(BIN)/python pyproject.toml hatch_build.py $(wildcard typed_amp/*.py)
	$(BIN)/python -m venv $(COMPILED)
	TYPED_AMP_COMPILED=1 $(COMPILED)/bin/pip install --quiet --disable-pip-version-check '.[dev]'
	@touch $@
