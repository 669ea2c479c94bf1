# Every target sets up what it needs in .venv on a machine with Python 3.11 or later and make.

PYTHON ?= python3
VENV ?= .venv
OLDEST ?= .venv-oldest
BIN := $(VENV)/bin

# DATA=file.json     the demo's data set
# URLS="a=… b=…"     databases of the demo on servers instead of SQLite files
# ARGS="…"           further arguments of the demo or the benchmarks
# TESTS="…"          what pytest is to run; WORKERS=n how many processes do it
# AGAIN=yes          run what failed beside others once more, one by one, before it counts as failed
DATA ?=
URLS ?=
ARGS ?=
TESTS ?=
WORKERS ?= 2
AGAIN ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP_INSTALL := -m pip install -qq --no-warn-script-location

.PHONY: help demo test test-oldest coverage lint types format bench docs clean
.DELETE_ON_ERROR:

help:
	@echo "make demo         a music shop over three SQLite files (DATA=file.json, URLS=\"catalog=postgresql://…\")"
	@echo "make test         the tests (TESTS=\"tests/test_x.py -k name\", WORKERS=2)"
	@echo "make test-oldest  the tests on the oldest SQLAlchemy that is supported"
	@echo "make coverage     the tests with branch coverage"
	@echo "make lint         ruff and mypy;  make types: mypy alone;  make format: mend what ruff can"
	@echo "make bench        the benchmarks, side by side with other libraries"
	@echo "make docs         the pages, in docs/_build"
	@echo "make clean        remove what was built, the virtualenvs too"

# $(call again,bin directory,mark): 5 is pytest's word for "no test was selected".
define again
|| test $$? -eq 5 || { test -n "$(AGAIN)" && echo "Once more, one by one:" \
	&& $(1)/python -m pytest -q -p no:xdist --last-failed --last-failed-no-failures none -m $(2) $(TESTS); }
endef

# $(call pytest,bin directory): in parallel first, then one by one what measures time.
define pytest
@$(1)/python -c "import sqlalchemy; print('SQLAlchemy', sqlalchemy.__version__)"
@$(1)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not alone" $(TESTS) $(call again,$(1),"not alone")
@$(1)/python -m pytest -q -p no:xdist -m alone $(TESTS) $(call again,$(1),alone)
endef

# $(call create,directory): an empty virtualenv, unless it is there.
define create
@test -x $(1)/bin/python || { \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "$(PYTHON) is older than 3.11 or missing; say PYTHON=python3.x"; exit 1; }; \
	$(PYTHON) -m venv $(1); }
endef

demo: $(VENV)/.installed-$(if $(URLS),drivers,demo)
	@$(BIN)/stillroom demo $(if $(DATA),--data "$(DATA)") $(foreach url,$(URLS),--url "$(url)") $(ARGS)

test: $(VENV)/.installed-dev
	$(call pytest,$(BIN))
	@echo "The same on the oldest SQLAlchemy that is supported: make test-oldest"

test-oldest: $(OLDEST)/.installed-dev
	$(call pytest,$(OLDEST)/bin)

coverage: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -q -n $(WORKERS) --cov --cov-report=term --cov-report=html $(TESTS)

lint: $(VENV)/.installed-dev types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(VENV)/.installed-dev
	@$(BIN)/mypy

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(VENV)/.installed-bench
	@$(BIN)/python -m benchmarks $(ARGS)

docs: $(VENV)/.installed-dev
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENV) $(OLDEST) docs/_build build dist htmlcov .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-demo: pyproject.toml constraints.txt
	$(call create,$(VENV))
	@echo "Setting up $(VENV) for the demo …"
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e ".[cli]"
	@touch $@

$(VENV)/.installed-drivers: pyproject.toml constraints.txt
	$(call create,$(VENV))
	@echo "Setting up $(VENV) for the demo on servers …"
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e ".[cli,postgresql,mariadb]"
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(call create,$(VENV))
	@echo "Setting up $(VENV) for development (about a minute) …"
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.installed-demo $(VENV)/.installed-drivers

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "Adding to $(VENV) what the benchmarks compare with …"
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e ".[bench]"
	@touch $@

$(OLDEST)/.installed-dev: pyproject.toml constraints-oldest.txt
	$(call create,$(OLDEST))
	@echo "Setting up $(OLDEST) with the oldest SQLAlchemy (about a minute) …"
	@$(OLDEST)/bin/python $(PIP_INSTALL) -c constraints-oldest.txt -e ".[dev]"
	@touch $@
