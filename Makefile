# Everything runs in .venv, made on first use. Another Python: make test PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
SLOW ?= not slow

.PHONY: help demo test test-all test-oldest lint format docs benchmark clean

help:
	@echo "make demo        train MAML and its baselines on sinusoids, draw the paper's figures"
	@echo "make test        the test suite"
	@echo "make test-all    with the slow tests, of faults and junk too"
	@echo "make test-oldest the test suite with the oldest versions allowed"
	@echo "make lint        ruff, format check, pyright"
	@echo "make docs        the documentation, into site/"
	@echo "make benchmark   speed beside PyTorch (installs torch)"

demo: .venv/installed
	$(BIN)/python -m experiments.sinusoid --config=configs/sinusoid.py --workdir=runs/demo

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "$(SLOW)"

test-all:
	$(MAKE) test SLOW="slow or not slow"

test-oldest: .venv-oldest/installed
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "$(SLOW)"

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-dev
	$(BIN)/mkdocs build --strict

benchmark: .venv/installed-bench
	$(BIN)/python -m experiments.benchmark --suite=speed --output=runs/speed/speed.json

clean:
	rm -rf .venv .venv-oldest runs build site *.egg-info

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --editable ".[dev,docs]"
	touch $@

.venv/installed-bench: .venv/installed-dev
	$(BIN)/pip install --quiet --editable ".[bench]"
	touch $@

.venv-oldest/installed: pyproject.toml
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet uv
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest --resolution lowest-direct --editable ".[dev,docs]"
	touch $@
