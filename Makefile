# Two commands: `make train` and `make test`. Both set everything up first.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CONFIG ?= tune_configs/portfolio_gru.yaml
# Ray forks many processes; one arithmetic thread in each is fastest on few cores.
export OMP_NUM_THREADS ?= 1
# Ray tells a usage server that it runs, unless told not to.
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: setup train test test-all test-nightly check bench tour clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; install Python 3.11 or say make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-build-isolation -c constraints.txt -e '.[dev]'
	touch $(STAMP)

train: setup  ## train the default policy on bundled real prices, judge it out of sample
	$(BIN)/rlplatform train $(CONFIG)

test: setup  ## the suite without the long trainings
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadscope --no-loadscope-reorder

test-all: setup  ## and the long trainings, as .ci/run does
	$(BIN)/python -m pytest -m "not nightly" -n 2 --dist loadscope --no-loadscope-reorder --durations=40 --durations-min=8

test-nightly: setup  ## everything, 40 minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations=40 --durations-min=8

check: setup  ## lint, format, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

bench: setup  ## speed, side by side, medians
	$(BIN)/rlplatform bench all

tour: setup  ## print the shape of each step on real data
	$(BIN)/python docs/tour.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
