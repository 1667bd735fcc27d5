# Every target does its own set-up; nothing has to be activated or installed before.
#   make test PYTHON=python3.13 VENV=.venv-3.13     another Python, beside the first
#   make test ARGS="tests/messaging -k retry"       some of the tests
#   make demo PORT=9000                             another port for the site

PYTHON ?= python3
VENV ?= .venv
export PORT ?= 8000
ARGS ?=

# Up to four processes, each with a database of its own; a file's tests stay together.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile
# Scenarios wait more than they compute; their conftest has the longest begin first.
SCENARIOS := -n 3 --dist loadfile --no-loadscope-reorder

RUN := $(VENV)/bin/python
READY := $(VENV)/.requirements

.DEFAULT_GOAL := help
.PHONY: help demo test proofs mutants scenarios lint bench screenshot wheel stop clean

help: ## Show what there is to run
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1#\2/p' Makefile | while IFS='#' read -r name what; do \
		printf '%-18s%s\n' "$$name" "$$what"; done

demo: $(READY) ## Start the shop, its workers and a replay of real orders; Ctrl-C stops all
	@$(RUN) -m config.demo

test: $(READY) ## Run the tests (ARGS= goes to pytest)
	@$(RUN) -m pytest $(PARALLEL) --ignore=tests/scenarios --ignore=tests/mutants -m "not proof" $(ARGS)

proofs: $(READY) ## Run random stories beside a model, and sessions in every order
	@$(RUN) -m pytest tests/messaging -m proof -n 2 --dist worksteal $(ARGS)

mutants: $(READY) ## Plant bugs, and see that the tests named for them find each
	@$(RUN) -m pytest tests/mutants -n 2 --dist load $(ARGS)

scenarios: $(READY) ## Run the tests that kill and restart real processes
	@$(RUN) -m pytest $(SCENARIOS) tests/scenarios $(ARGS)

lint: $(READY) ## Check style, types, layers, templates and migrations
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/djade --check --target-version 5.2 $$(find messaging templates -name '*.html')
	$(RUN) manage.py makemigrations --check --dry-run
	$(RUN) manage.py check --fail-level WARNING

bench: $(READY) ## Measure publishing and handling against plain SQL, and keys beside a blocked one
	@$(RUN) -m benchmarks $(ARGS)

screenshot: $(READY) ## Photograph the live page of the demo that runs, for the README
	@$(RUN) docs/make_screenshots.py $(PORT)

wheel: $(READY) ## Build the wheel of the messaging app into dist/
	@$(RUN) -m build --wheel --outdir dist .

stop: $(READY) ## Stop the checkout's database, keeping its data
	@$(RUN) -m config.embedded stop

clean: ## Stop the checkout's database and remove all that was made, its data too
	@if [ -x $(RUN) ] && [ -d .data ]; then $(RUN) -m config.embedded stop; fi
	rm -rf .data .venv .venv-* $(VENV) dist build .pytest_cache .ruff_cache .mypy_cache \
		.import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is older than Python 3.11. Name a newer one: make PYTHON=python3.13"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments. On Debian: apt install python3-venv"; exit 1; }
	@echo "Installing packages into $(VENV) (once, a minute or so)"
	@[ -x $(RUN) ] || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install -qq --disable-pip-version-check -r requirements.txt
	@touch $@
