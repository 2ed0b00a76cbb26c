# Two commands for a machine with only Python >= 3.11 and make: `make run` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: run test test-browser notebooks docs lint format validate bench clean setup lock

run: $(READY)  ## The main job: a RAG pipeline of Llama-3-70B on one 8 x A100 node
	$(BIN)/hermes-sim --cluster a100x8.yaml --workload rag.yaml

test: $(READY)  ## All tests; the compile cache is warmed once before the workers start
	$(BIN)/python -m tests.warm_up
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not browser"

test-browser: $(READY)  ## The pages in headless Chromium (Debian: chromium chromium-driver); without one, reported skips
	$(BIN)/python -m pytest -rs -m browser tests/browser

notebooks: $(READY)  ## Every notebook in a kernel of its own; fails on an error or a warning
	$(BIN)/python -m tests.docs.execute_notebooks

docs: $(READY)  ## The pages as a site in site/, which opens from the disk; fails on a warning
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: $(READY)  ## Style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

validate: $(READY)  ## Cost models and replays against measured data (HERMES_DATA or ../shared/data); fails if a bar regresses
	$(BIN)/hermes-sim validate --gate
	$(BIN)/python -m pytest -m data -rs

bench: $(READY)  ## How fast: requests simulated per CPU second; fails where a bar is missed (some minutes)
	$(BIN)/python -m benchmarks.speed --gate

setup: $(READY)

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q hermes_sim
	touch $(READY)

lock:  ## Pin the versions that are installed now
	$(BIN)/python -m pip freeze --exclude-editable > requirements.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
