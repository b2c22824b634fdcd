# make explain simulate evaluate CONFIG=data/configs/default.toml RUN=runs/default SIMULATOR=patterns ENGINE=transformers
# SET="key=value ..."; without CONFIG a run goes on with its own config, SET over it. Add DRY=1 to be told what language models
# would be asked, and its price, and ask nothing.
RUN ?= runs/default
PYTHON ?= python3
VENV ?= .venv
VENV_VLLM ?= .venv-vllm
VENV_EXPORT ?= .venv-export
VENV_DOCS ?= .venv-docs

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_VLLM := $(VENV_VLLM)/.installed
INSTALLED_EXPORT := $(VENV_EXPORT)/.installed
INSTALLED_DOCS := $(VENV_DOCS)/.installed
REWRITE := $(BIN)/rewrite
CHOSEN = $(if $(CONFIG),--config $(CONFIG)) $(if $(PRESET),--preset $(PRESET)) \
	$(if $(EXPLAINER),--set explainer=$(EXPLAINER)) $(if $(SIMULATOR),--set simulator=$(SIMULATOR)) \
	$(if $(CALIBRATOR),--set calibrator=$(CALIBRATOR)) $(if $(ENGINE),--set engine=$(ENGINE)) \
	$(foreach pair,$(SET),--set '$(pair)')
SETTINGS = $(CHOSEN) --run $(RUN)
OPTIONS = $(SETTINGS) $(if $(DRY),--dry-run)

.PHONY: setup train explain tune simulate score evaluate report run sweep status export compare plan planted paper-small subject
.PHONY: browser test test-llm test-vllm test-export check docs mutants bench clean

setup: $(INSTALLED)

# torch first and pinned: an open range may bring gigabytes of CUDA.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

train explain tune simulate score: $(INSTALLED)
	$(REWRITE) $@ $(OPTIONS)

# The verdict needs the analysis and the report, so evaluating ends with both.
evaluate report run: $(INSTALLED)
	$(REWRITE) report $(OPTIONS) $(if $(OPEN),--open)

# make sweep GRID="hookpoint=layers.0.mlp,layers.1.mlp coder.seed=0,1" RUN=runs/sweep: a run a point, and one page over all.
sweep: $(INSTALLED)
	$(REWRITE) sweep $(CHOSEN) $(foreach pair,$(GRID),--grid '$(pair)') --out $(RUN:runs/default=runs/sweep)

# What is fresh in RUN, how far it has come, what it cost, and what to do next.
status: $(INSTALLED)
	$(REWRITE) status $(SETTINGS)

# make export FORM=neuronpedia RUN=runs/default OUT=exported
export: $(INSTALLED)
	$(REWRITE) export $(FORM) $(RUN) --out $(OUT)

# make compare RUNS="runs/a runs/b" OUT=compared.html
compare: $(INSTALLED)
	$(REWRITE) compare $(RUNS) $(if $(OUT),--out $(OUT))

# make plan RUN=runs/pilot EFFECT=0.05: how much a wished-for effect needs, and its price; SCALE="latents=32768 layers=12": what
# a run of other sizes takes.
plan: $(INSTALLED)
	$(REWRITE) plan $(RUN) $(if $(EFFECT),--effect $(EFFECT)) $(if $(SCALE),--scale $(SCALE))

# The tests of the page drive a real browser; without one they skip and say so.
browser:
	command -v chromium || command -v google-chrome || (apt-get update -qq && apt-get install -y -qq chromium)

# Three at a time, a thread each: several threads each would wait for one another, and on two cores a third works while others
# wait for a server or a kill. What is compiled is kept, as the tests begin many processes. FAST=1 leaves out what is marked slow.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder \
		$(if $(FAST),-m "not slow",--cov --cov-report=term:skip-covered --cov-fail-under=90)

# vLLM wants an older transformers and the CPU build of torch, so it lives apart.
$(INSTALLED_VLLM): pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VENV_VLLM)
	torch="$$(grep '^torch==' constraints-vllm.txt)"; pip="$(VENV_VLLM)/bin/pip install --quiet --no-deps $$torch"; \
		$$pip || $$pip --index-url https://download.pytorch.org/whl/cpu
	$(VENV_VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement constraints-vllm.txt
	$(VENV_VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# Real language models, in a folder that REWRITE_MODELS names: on transformers and llama.cpp's server, and on vLLM where
# `make test-vllm` has made its environment.
test-llm: $(INSTALLED)
	REWRITE_MODELS=$(REWRITE_MODELS) $(BIN)/python -m pytest -s tests/real
	test ! -e $(INSTALLED_VLLM) || REWRITE_MODELS=$(REWRITE_MODELS) $(VENV_VLLM)/bin/python -m pytest -s \
		tests/real/test_language_models.py -k vllm

test-vllm: $(INSTALLED_VLLM)
	$(VENV_VLLM)/bin/python -m pytest tests/engines/test_engines.py tests/engines/test_vllm.py

# The packages that read what is exported bring many others, so they live apart too.
$(INSTALLED_EXPORT): pyproject.toml constraints-export.txt
	$(PYTHON) -m venv $(VENV_EXPORT)
	torch="$$(grep '^torch==' constraints-export.txt)"; pip="$(VENV_EXPORT)/bin/pip install --quiet --no-deps $$torch"; \
		$$pip || $$pip --index-url https://download.pytorch.org/whl/cpu
	$(VENV_EXPORT)/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement constraints-export.txt
	$(VENV_EXPORT)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

test-export: $(INSTALLED_EXPORT)
	OMP_NUM_THREADS=1 $(VENV_EXPORT)/bin/python -m pytest tests/exports tests/coder/test_authors.py tests/arms/test_lens.py

# What builds the documentation reads the code and imports none of it, so its environment is small.
$(INSTALLED_DOCS): constraints-docs.txt
	$(PYTHON) -m venv $(VENV_DOCS)
	$(VENV_DOCS)/bin/pip install --quiet --disable-pip-version-check --requirement constraints-docs.txt
	touch $@

# A warning is an error. The site is in site/: `python3 -m http.server --directory site` shows it.
docs: $(INSTALLED_DOCS)
	NO_MKDOCS_2_WARNING=1 $(VENV_DOCS)/bin/mkdocs build --strict

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Faults of the science planted one at a time: the tests must catch each. Takes half an hour.
mutants: $(INSTALLED)
	$(BIN)/python -m benchmarks.mutants

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

subject: $(INSTALLED)
	$(BIN)/python data/make_subject.py --out data/subject

# The positive control: a built model whose every rule is known, with true, corrupted and shuffled rules as explanations.
planted: $(INSTALLED)
	$(REWRITE) planted planted

# The paper's protocol at a size that runs here, with a small model of random weights as explainer and simulator.
paper-small: $(INSTALLED) small-model
	$(REWRITE) report --config data/configs/paper-small.toml --run runs/paper-small

small-model: $(INSTALLED)
	test -d $@ || $(BIN)/python tests/makers/tiny.py $@

clean:
	rm -rf $(VENV) $(VENV_VLLM) $(VENV_EXPORT) $(VENV_DOCS) site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
