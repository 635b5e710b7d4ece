# Each command makes .venv when it is missing; python3 (3.11 or later) and make are all it needs.
#   make demo    train a GRU on 2 processes; the result is runs/demo.h5
#   make paper   the figures of the paper on GRUs, in runs/paper; up to half an hour on 2 cores
#   make test    the tests, without those that take longer than 10 s
#   make test-all  all tests
#   make lint    ruff and mypy
#   make docs    the manual, in docs/_build/html
#   make bench   which benchmarks there are
#   make clean   remove what the others made, .venv included; runs stays
# Variables: PYTHON=python3.12, MPIEXEC=/path/to/mpiexec, RANKS=4 (demo), ARGS="..." (demo, paper, test).

PYTHON ?= python3
RANKS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# MPI: the one named by the caller, the machine's own, or else PyPI's mpich inside .venv.
ifndef MPIEXEC
MPIEXEC := $(filter-out $(CURDIR)/$(BIN)/%,$(shell command -v mpiexec 2>/dev/null))
endif
ifeq ($(MPIEXEC),)
MPIEXEC := $(CURDIR)/$(BIN)/mpiexec
MPICH := ,mpich
endif
export MPIEXEC

# Each rank is one thread: more would fight over the same cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1

# Two workers: one starts the tests on MPI ranks, one at a time.
SIDE_BY_SIDE := -p no:benchmark -n 2 --dist loadgroup

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo paper test test-all lint docs bench clean mpi-check
.PHONY: lint-imports lint-limits lint-house lint-words

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/demo.stamp mpi-check
	mkdir -p runs
	$(ONE_THREAD) $(MPIEXEC) -n $(RANKS) $(BIN)/python -m apps.train --output runs/demo.h5 $(ARGS)

paper: $(VENV)/paper.stamp mpi-check
	$(ONE_THREAD) $(BIN)/python -u -m benchmarks.paper --output runs/paper $(ARGS)

# Kernels are compiled first: two workers would compile the same ones.
test test-all: $(VENV)/test.stamp mpi-check
	$(ONE_THREAD) $(BIN)/python -m tests.warm_up
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
	    $(BIN)/python -m pytest $(SIDE_BY_SIDE) $(if $(filter test,$@),-m "not slow") $(ARGS)

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict pint
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tests.lint.limits
	$(BIN)/python -m tests.lint.house
	$(BIN)/python -m tests.lint.words

# Parts of lint: layers and circles of imports, sizes of functions, names of the house, English.
lint-imports: $(VENV)/lint.stamp
	$(BIN)/lint-imports --no-cache

lint-limits lint-house lint-words: lint-%: $(VENV)/lint.stamp
	$(BIN)/python -m tests.lint.$*

docs: $(VENV)/docs.stamp
	find pint -name '*.py' -exec $(BIN)/python -m numpydoc.hooks.validate_docstrings {} +
	rm -rf docs/api
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/bench.stamp
	@for file in benchmarks/[!_]*.py; do \
	    [ -e "$$file" ] || { echo "no benchmarks yet"; break; }; \
	    name=$$(basename "$$file" .py); \
	    echo "$(BIN)/python -m benchmarks.$$name   $$(sed -n '1s/"""//gp' "$$file")"; \
	done

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find pint apps benchmarks tests -name __pycache__ -prune -exec rm -rf {} +

# What each command installs on top of the package.
EXTRAS_demo := demo$(MPICH)
EXTRAS_paper := demo,report$(MPICH)
EXTRAS_test := demo,onnx,report,test,video,weights$(MPICH)
EXTRAS_lint := demo,onnx,report,weights,lint
EXTRAS_docs := demo,report,docs
EXTRAS_bench := demo,test$(MPICH)

$(VENV)/%.stamp: setup.cfg constraints.txt | $(BIN)/pip
	@echo "installing pint[$(EXTRAS_$*)] into $(VENV), a minute or two"
	@$(PIP) install --constraint constraints.txt --editable ".[$(EXTRAS_$*)]"
	@touch $@

# pip comes last into a new environment, so it stands for a complete one.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "pint needs Python 3.11 or later; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# With the launcher of one MPI and the library of another, ranks abort or are n worlds of one.
mpi-check:
	@$(MPIEXEC) -n 2 $(BIN)/python -c \
	    'from mpi4py import MPI; raise SystemExit(MPI.COMM_WORLD.size != 2)' || { \
	    echo "$(MPIEXEC) does not start mpi4py on 2 ranks: launcher and MPI library must belong"; \
	    echo "together. Name the right one with make MPIEXEC=..., or begin again with make clean."; \
	    exit 1; }

# Open MPI refuses more ranks than cores, and root; other launchers do not read these.
demo paper test test-all: export OMPI_MCA_rmaps_base_oversubscribe := 1
demo paper test test-all: export PRTE_MCA_rmaps_default_mapping_policy := :oversubscribe
test test-all: export OMPI_ALLOW_RUN_AS_ROOT := 1
test test-all: export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
