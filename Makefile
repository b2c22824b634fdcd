# make explain simulate evaluate CONFIG=data/configs/default.toml RUN=runs/default SIMULATOR=patterns SET="key=value ..."
CONFIG ?= data/configs/default.toml
RUN ?= runs/default
PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
REWRITE := $(BIN)/rewrite
OPTIONS = --config $(CONFIG) --run $(RUN) \
	$(if $(EXPLAINER),--set explainer=$(EXPLAINER)) $(if $(SIMULATOR),--set simulator=$(SIMULATOR)) \
	$(if $(CALIBRATOR),--set calibrator=$(CALIBRATOR)) $(foreach pair,$(SET),--set '$(pair)')

.PHONY: setup train explain simulate evaluate report run test check bench subject clean

setup: $(INSTALLED)

# torch first and pinned: an open range may bring gigabytes of CUDA.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

train explain simulate: $(INSTALLED)
	$(REWRITE) $@ $(OPTIONS)

# The verdict needs the analysis and the report, so evaluating ends with both.
evaluate report run: $(INSTALLED)
	$(REWRITE) report $(OPTIONS)

test: $(INSTALLED)
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

subject: $(INSTALLED)
	$(BIN)/python data/make_subject.py --out data/subject

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
