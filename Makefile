# Everything is set up in .venv (VENV=FOLDER for another), from hashes in a lock file. Nothing else on this machine is touched.
# The help is made of the comments after `##`.

PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && exit; done; echo python3)
VENV ?= .venv
UV ?= $(shell command -v uv || echo build/uv/bin/uv)
# Tests wait for a part of their time: three at once keep two cores busy.
WORKERS ?= 3
SCHEDULES ?= 20
SEED ?= 1
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url
PIP = PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_WARN_SCRIPT_LOCATION=1 $(VENV)/bin/python -m pip --quiet
READY = $(VENV)/ready
# Hundreds of processes start in demo and tests: without compiled modules each would compile all of ours again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test faults nights browser chaos mutants bench check audit format docs site lock chart notebook sbom release clean

help: ## list what can be made
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; do \
		printf '%-12s %s\n' "$$name" "$$text"; done

demo: $(READY) ## run the whole system on this machine for a minute, against a stand-in for TikTok
	@$(VENV)/bin/celery -A worker demo $(ARGS)

test: $(READY) ## run the tests; real Redis and PostgreSQL servers start as child processes
	@$(VENV)/bin/pytest -n $(WORKERS) $(ARGS)

faults: $(READY) ## run the tests that take long: on the other database, on real processes, on whole stacks
	@$(VENV)/bin/pytest -n $(WORKERS) --dist loadgroup -m 'slow_suite and not browser and not night' $(ARGS)

nights: $(READY) ## run the tests that take many minutes each: weeks of account data, a million rows, every part of the benchmark
	@$(VENV)/bin/pytest -m night $(ARGS)

browser: $(READY) ## run the tests that look at Flower and the desk through Chromium, which must be installed
	@$(VENV)/bin/pytest -m 'browser and not night' $(ARGS)

chaos: $(READY) ## play random schedules of three faults and judge them: make chaos SCHEDULES=1000 SEED=7 ROTATION=strict
	@$(VENV)/bin/python -m tests.faults.chaos --schedules $(SCHEDULES) --seed $(SEED) $(ROTATION:%=--rotation %)

mutants: $(READY) ## plant deliberate bugs one by one; each must turn its tests red
	@$(VENV)/bin/python -m tests.faults.mutants $(ARGS)

bench: $(READY) ## measure a worker beside a home-made one, for some minutes: make bench ARGS="--parts speed --rounds 3"
	@$(VENV)/bin/python -m benchmarks $(ARGS)

check: $(READY) ## check style, types, the house's rules and that generated pages are up to date
	@echo "ruff: style" && $(VENV)/bin/ruff check --quiet
	@echo "ruff: format" && $(VENV)/bin/ruff format --check --quiet
	@echo "mypy: types" && $(VENV)/bin/mypy --no-error-summary
	@echo "import-linter: the house" && { report=$$($(VENV)/bin/lint-imports 2>&1) || { echo "$$report"; exit 1; }; }
	@echo "docs: generated pages" && $(VENV)/bin/python docs/write_reference.py --check

audit: $(READY) ## look for known vulnerabilities of the pinned versions; exit 3 where no source of them can be asked
	@$(VENV)/bin/python deploy/audit.py $(ARGS)

format: $(READY) ## put the code into the project's format
	@$(VENV)/bin/ruff check --quiet --fix-only && $(VENV)/bin/ruff format --quiet

docs: $(READY) ## write the reference pages again from the code
	@$(VENV)/bin/python docs/write_reference.py

site: build/sphinx/ready ## render all pages as a site with a search into build/site; a link that leads nowhere fails
	@rm -rf build/site
	@build/sphinx/bin/sphinx-build -c docs -b html -d build/sphinx/doctrees -j 2 --fresh-env --quiet --fail-on-warning --keep-going . build/site
	@cp build/site/README.html build/site/index.html && echo "build/site/index.html"

lock: $(UV) ## pin the newest versions that pyproject.toml permits, with hashes
	@echo "deploy/requirements.lock: what a server needs"
	@$(COMPILE) --upgrade --extra flower --extra desk --output-file deploy/requirements.lock pyproject.toml
	@echo "deploy/requirements-telemetry.lock: that, and what sends traces and errors elsewhere"
	@$(COMPILE) --upgrade --extra flower --extra desk --extra otel --extra sentry --constraint deploy/requirements.lock --output-file deploy/requirements-telemetry.lock pyproject.toml
	@echo "deploy/requirements-dev.lock: what a server needs, and what demo and tests need"
	@$(COMPILE) --upgrade --extra dev --constraint deploy/requirements-telemetry.lock --output-file deploy/requirements-dev.lock pyproject.toml
	@echo "deploy/site.lock: what renders the pages as a site"
	@printf 'furo\nmyst-parser\n' | $(COMPILE) --upgrade --output-file deploy/site.lock -

chart: $(READY) build/helm/ready ## render the Helm chart with Helm's own engine, and check what comes out
	@$(VENV)/bin/pytest -n 0 -m '' tests/project/test_chart.py

notebook: $(READY) build/notebook/ready ## let Jupyter run the notebook of account data against a filled database
	@$(VENV)/bin/pytest -n 0 -m '' tests/worker/test_notebook.py

sbom: $(READY) ## write a bill of materials (CycloneDX) of what a server installs to build/sbom.cdx.json
	@$(VENV)/bin/python deploy/sbom.py --out build/sbom.cdx.json && echo "build/sbom.cdx.json"

release: $(READY) ## build both wheels, source archive, bill of materials and their SHA-256 into dist; push nothing
	@$(VENV)/bin/python deploy/release.py

clean: ## remove what was built here, .venv included; data under var/ stays
	@rm -rf .venv .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	@find . -path ./var -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): deploy/requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Evertoken needs Python 3.11 or newer and found %d.%d; name one: make PYTHON=/path/to/python3.11" % sys.version_info[:2])'
	@echo "Setting up $(VENV) with $$($(PYTHON) --version 2>&1); the first time takes a minute or two."
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module does not work here (on Debian and Ubuntu: install python3-venv)."; exit 1; }
	@$(PIP) install --require-hashes --requirement deploy/requirements-dev.lock
	@PYTHONWARNINGS='ignore:Editable installation' $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

build/uv/bin/uv:
	@echo "Fetching uv into build/uv."
	@$(PYTHON) -m venv build/uv && build/uv/bin/python -m pip --quiet --disable-pip-version-check install uv

# Sphinx: 120 MB, apart, so that nothing of it weighs on the pins of the daemon.
build/sphinx/ready: deploy/site.lock
	@echo "Fetching Sphinx into build/sphinx."
	@$(PYTHON) -m venv build/sphinx && build/sphinx/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --requirement deploy/site.lock
	@touch $@

# Jupyter, pandas and matplotlib, which only the notebook of account data needs.
build/notebook/ready: deploy/notebook.lock
	@echo "Fetching Jupyter into build/notebook."
	@$(PYTHON) -m venv build/notebook && build/notebook/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --requirement deploy/notebook.lock
	@touch $@

# Helm's engine as a library: 75 MB, which only those who change the chart need.
build/helm/ready: deploy/chart.lock
	@echo "Fetching Helm into build/helm."
	@$(PYTHON) -m venv build/helm && build/helm/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --requirement deploy/chart.lock
	@touch $@
