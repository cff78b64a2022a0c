.DEFAULT_GOAL := help
.PHONY: help setup test fuzz check demo bench docs clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## .venv from requirements.lock (PYTHON=… picks the Python, LOCK=requirements-gpu.lock the GPU packages)
	@PYTHON="$(PYTHON)" LOCK="$(LOCK)" scripts/setup

test: setup ## all tests
	@scripts/test

fuzz: setup ## the property tests, on values never tried before
	@scripts/test -m hypothesis --hypothesis-profile=new

check: setup ## lint, format, types
	@scripts/check

demo: setup ## the whole job on embedded data, into demo-out/
	@examples/demo.sh

bench: setup ## the full-size model with random weights, against the published way of working
	@benchmarks/full-size.sh

docs: setup ## docs/cli.md from the commands' help, the settings in docs/training.md, and the README's output from a run of the demo
	@.venv/bin/python scripts/cli_docs.py
	@.venv/bin/python scripts/settings_docs.py
	@.venv/bin/python scripts/readme_output.py

clean: ## removes what was made: .venv, caches, demo-out/
	rm -rf .venv build dist demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
