# Targets a person can guess. Everything runs in .venv, made from the hashed lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FAST := not fuzz and not process and not cli and not lab and not gpu and not online and not install and not parsers and not faults

.PHONY: help setup demo rehearsal lab lab-down docs test test-lab test-install faults unit thorough fuzz test-parsers score lint types format locks real-gpu wheel clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/ready  ## the virtual environment, from the hashed lock

$(VENV)/ready: requirements.txt pyproject.toml
	@echo "setting up $(VENV) from the hashed lock, half a minute ..."
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: setup  ## plans of the rehearsal machines, then two lab hosts served and verified
	@$(BIN)/python scripts/demo.py

rehearsal: setup  ## plans and files for captured machines, no host needed
	@$(BIN)/pyinfra inventories/rehearsal.py deploys/serve.py -y || [ $$? -eq 1 ]
	@echo "files are under rehearsal/; machines without a usable plan were refused, as they should be"

lab: setup  ## two real systemd hosts with simulated GPUs (root)
	@$(BIN)/python tests/lab/lab.py up matched mixed

lab-down: setup  ## remove the lab without a trace
	@$(BIN)/python tests/lab/lab.py down

docs: setup  ## pages that are written from the code: rules, the example of plan-json, tests/pages/
	@$(BIN)/python scripts/rules_page.py
	@$(BIN)/python scripts/plan_json_page.py
	@$(BIN)/python scripts/metrics_page.py
	@$(BIN)/python -m tests.pages

test: setup lint types  ## everything; the lab where it can run
	@HYPOTHESIS_PROFILE=careful $(BIN)/python -m pytest -n 3 -m "$(FAST)"
	@$(BIN)/python -m pytest -m "not ($(FAST)) and not install and not parsers and not faults and not lab_long" --durations=15

test-lab: setup  ## every test on lab hosts, also the long ones that make test leaves out
	@$(BIN)/python -m pytest -m "lab and not install and not faults" tests/lab --durations=15

test-install: setup  ## vLLM and SGLang onto bare lab hosts from the registries: gigabytes, minutes
	@$(BIN)/python -m pytest -m install -s tests/lab/test_real_install.py

faults: setup  ## every fault on lab hosts, a quarter of an hour; writes docs/fault-matrix.md
	@$(BIN)/python -m pytest -m faults -s tests/lab/test_faults.py -k whole

unit: setup  ## the fast tier
	@$(BIN)/python -m pytest -n 3 -m "$(FAST)"

thorough: setup  ## the property tests with a thousand examples each
	@HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest -n 3 -m "$(FAST)"

fuzz: setup  ## two hundred thousand broken outputs of tools, none may raise
	@$(BIN)/python -m tests.fuzz.run

test-parsers: setup  ## every command line against the real parsers of vLLM, SGLang and llama-server (2 GB once)
	@$(BIN)/python -m pytest -m parsers tests/parsers --durations=5

score: setup  ## predictions and choices against published measurements (../shared), goal by goal
	@$(BIN)/python -m benchmarks.score

lint: setup  ## style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup  ## mypy, strict
	@$(BIN)/mypy

format: setup  ## let ruff rewrite
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

locks:  ## renew requirements.txt and templates/requirements/ (needs uv)
	scripts/make_locks.sh

real-gpu: setup  ## what this machine's card says against predictions; skips what is missing
	@$(BIN)/python -m scripts.real_gpu $(ARGS)

wheel: setup  ## build and cache the llama.cpp wheel for the lab
	@$(BIN)/python scripts/build_llama_wheel.py

clean:  ## everything made here, but for the cache
	rm -rf $(VENV) build dist rehearsal .mypy_cache .pytest_cache .ruff_cache .hypothesis
