# `make help` lists what there is. Works with GNU make 3.81 and later, from any path.

.DEFAULT_GOAL := help
SHELL := /bin/sh
.SUFFIXES:

# --- Variables; give them as in `make run SOURCE=sample EPOCHS=20` --------------------------------

# Python that the environment is made with; empty: the newest one that is found and in range.
PYTHON ?=
VENV ?= .venv
# Which tests `make test` selects (pytest's -m), and what else pytest is told.
MARKERS ?= not slow
PYTEST_ARGS ?=
# Processes that share the tests, file by file, since tests of a file share what is made for them.
WORKERS ?= 2
# Seconds of `make fuzz`; kills of each work of `make kills`.
BUDGET ?= 90
KILLS ?= 12
# Arguments of benchmarks/benchmark.py, and of benchmarks/ablation.py (--only 'ROW' ...).
BENCH_ARGS ?=
ABLATION_ARGS ?=
# Of `make laboratories`: NAME=SOURCE of each, and options such as --seeds 3.
LABORATORIES ?= BCCD=kaggle Barcelona=pbc Chula=chula --seeds 3
# 1: the figures of docs/ are replaced, instead of ones below runs/ being written.
REPLACE ?=
replace = $(if $(REPLACE), --replace)

python = $(call quoted,VENV)/bin/python
pytest = $(python) -m pytest --numprocesses=$(call quoted,WORKERS) --dist=loadfile

# A variable that nothing here reads is misspelt, and is refused before any work.
VARIABLES = SOURCE EPOCHS RECIPE VALIDATION RUN SEED DATA_DIR RUNS_DIR PHOTOGRAPHS FOLDS SCHEDULER \
  N_WORKERS PYTHON VENV MARKERS PYTEST_ARGS WORKERS BENCH_ARGS ABLATION_ARGS REPLACE REPO PYTHON313 \
  BUDGET KILLS LABORATORIES
misspelt = $(filter-out $(VARIABLES) SHELL MAKEFLAGS,$(foreach name,$(.VARIABLES),\
  $(if $(filter command,$(firstword $(origin $(name)))),$(name))))
ifneq ($(strip $(misspelt)),)
$(error There is no variable $(firstword $(misspelt)); did you mean \
  $(shell awk -f .ci/nearest.awk $(firstword $(misspelt)) $(VARIABLES))? `make help` lists them)
endif

# The value of a variable as it was typed, as one word of the shell: `$(value …)` leaves a `$` in a
# path alone, and the rest does so with spaces and quotes.
quoted = '$(subst ','\'',$(value $(1)))'
option = $(if $(value $(2)), --$(1)=$(call quoted,$(2)))
# Who does what falls into pieces, see docs/scale.md.
shared = $(call option,scheduler,SCHEDULER)$(call option,workers,N_WORKERS)
# Handing them down to every command as well would expand that `$` after all.
unexport SOURCE EPOCHS RECIPE VALIDATION RUN SEED DATA_DIR RUNS_DIR PHOTOGRAPHS FOLDS SCHEDULER N_WORKERS

# --- What people do -------------------------------------------------------------------------------

.PHONY: help
help: ## list the targets
	@echo 'make TARGET [VARIABLE=value ...]'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Variables of run: SOURCE (auto, kaggle, sample, or the path of an archive or folder),'
	@echo 'EPOCHS, RECIPE (compact by default), VALIDATION (random or grouped), RUN (name of the'
	@echo 'run), SEED, DATA_DIR, RUNS_DIR. Of crossval: the same but VALIDATION, and PHOTOGRAPHS'
	@echo '(train or all), FOLDS; SCHEDULER (of Dask) or N_WORKERS, as of laboratories and ablation.'
	@echo 'Of all: PYTHON (makes .venv), VENV (its folder). Of test: MARKERS, PYTEST_ARGS, WORKERS.'

.PHONY: run
run: setup ## get the data, execute the notebooks, render the report
	@$(python) -m wbc_helpers run$(call option,source,SOURCE)$(call option,epochs,EPOCHS)$(call option,recipe,RECIPE)$(call option,validation,VALIDATION)$(call option,run,RUN)$(call option,seed,SEED)$(call option,data-dir,DATA_DIR)$(call option,runs-dir,RUNS_DIR)

.PHONY: crossval
crossval: setup ## judge every photograph by a network that never saw it (SOURCE, RECIPE, EPOCHS)
	@$(python) -m wbc_helpers crossval$(call option,source,SOURCE)$(call option,epochs,EPOCHS)$(call option,recipe,RECIPE)$(call option,photographs,PHOTOGRAPHS)$(call option,folds,FOLDS)$(shared)$(call option,run,RUN)$(call option,seed,SEED)$(call option,data-dir,DATA_DIR)$(call option,runs-dir,RUNS_DIR)

.PHONY: report
report: setup ## render the pages of all runs again (RUNS_DIR)
	@$(python) -m wbc_helpers report$(call option,runs-dir,RUNS_DIR)

.PHONY: test
test: lint ## lint, unit tests, notebook pairs, a notebook on the sample
	@$(pytest) -m $(call quoted,MARKERS) $(PYTEST_ARGS)

.PHONY: test-all
test-all: lint ## the same, slow tests and every notebook too
	@$(pytest) $(PYTEST_ARGS)

.PHONY: fuzz
fuzz: setup-dev ## read broken input made up at random for BUDGET seconds
	@$(python) tests/fuzz.py --seconds $(call quoted,BUDGET)

.PHONY: kills
kills: setup-dev ## kill training, counting, unpacking and decoding KILLS times each, and compare
	@$(python) tests/kills.py --kills $(call quoted,KILLS)

.PHONY: audit
audit: setup ## find each image's photograph, overlaps, leaks, repeats (SOURCE, DATA_DIR)
	@$(python) -m wbc_helpers audit$(call option,source,SOURCE)$(call option,data-dir,DATA_DIR)

# --- What measures: benchmarks/README.md ----------------------------------------------------------

measure = $(python) benchmarks/$(1).py$(call option,source,SOURCE)$(call option,data-dir,DATA_DIR)

.PHONY: locate
locate: setup ## print how many boxed white cells are found (SOURCE: bccd or its archive)
	@$(call measure,locating)

.PHONY: count
count: setup ## score the detector on boxed photographs, and count (SOURCE: bccd or its archive, RUN)
	@$(call measure,detecting)$(call option,run,RUN)$(call option,runs-dir,RUNS_DIR)

.PHONY: laboratories
laboratories: setup ## train broad without each laboratory in turn, judge it there (LABORATORIES)
	@$(python) benchmarks/laboratories.py$(call option,data-dir,DATA_DIR)$(call option,runs-dir,RUNS_DIR)$(shared) $(LABORATORIES)

.PHONY: teaching
teaching: setup ## print what labels bring at a laboratory left out, from the runs of laboratories
	@$(python) benchmarks/teaching.py$(call option,data-dir,DATA_DIR)$(call option,runs-dir,RUNS_DIR) $(LABORATORIES)

.PHONY: ablation
ablation: setup ## measure what each part of compact brings (SOURCE, SEED, ABLATION_ARGS)
	@$(call measure,ablation)$(call option,seed,SEED)$(call option,runs-dir,RUNS_DIR)$(shared) $(ABLATION_ARGS)

.PHONY: bench
bench: setup ## measure speed and memory (SOURCE, BENCH_ARGS; REPLACE=1 replaces the figure in docs/)
	@$(call measure,benchmark)$(replace) $(BENCH_ARGS)

.PHONY: scale
scale: setup-dev ## count a thousand photographs by workers, one killed (SOURCE: bccd or its archive)
	@$(call measure,scale)

.PHONY: results
results: setup ## print the table of finished runs, draw its figure (RUNS_DIR; REPLACE=1 as for bench)
	@$(python) benchmarks/results.py$(call option,runs-dir,RUNS_DIR)$(replace)

.PHONY: pictures
pictures: setup-dev ## make the pictures of docs/images from drawn cells (needs Chromium)
	@$(python) benchmarks/pictures.py

# --- What contributors do -------------------------------------------------------------------------

.PHONY: lint
lint: setup-dev ## check style, formatting and types
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy

# Ruff changes the .ipynb of a pair, see pyproject.toml; jupytext takes it over into the script.
.PHONY: format
format: notebooks ## mend style and formatting, of notebooks too
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .
	@$(python) -m jupytext --quiet --to py:percent notebooks/*.ipynb

# The script is the source. `--update` keeps the cells' ids, and nbstripout drops any output, so
# that doing this twice changes nothing. Work in a notebook that its script lacks is not thrown away.
.PHONY: notebooks
notebooks: setup-dev ## write each .ipynb from its .py
	@for notebook in $$(git diff --name-only HEAD -- 'notebooks/*.ipynb' 2>/dev/null); do \
	  script=$${notebook%.ipynb}.py; \
	  if git diff --quiet HEAD -- "$$script" && [ -f "$$notebook" ] \
	    && ! $(python) -m jupytext --quiet --to py:percent --output - "$$notebook" | cmp -s - "$$script"; \
	  then \
	    echo "$$notebook was edited, $$script was not. To keep the edit, take it over first:" >&2; \
	    echo "$(VENV)/bin/python -m jupytext --to py:percent $$notebook" >&2; \
	    echo "To drop it: git checkout $$notebook" >&2; exit 1; \
	  fi; \
	done
	@$(python) -m jupytext --quiet --to ipynb --update notebooks/*.py
	@$(python) -m nbstripout --keep-id --extra-keys metadata.language_info notebooks/*.ipynb

.PHONY: site
site: setup ## build the site that is published: notebooks executed on drawn cells, docs, runs
	@$(python) .ci/publish.py

.PHONY: badges
badges: setup ## write the repository's address everywhere: REPO=owner/name
	@$(python) .ci/badges.py $(call quoted,REPO)

.PHONY: colab-check
colab-check: setup ## execute all notebooks as Colab would (Python 3.13, PYTHON313=path)
	@$(python) .ci/colab_check.py

.PHONY: clean
clean: ## remove what was built; never data/ or runs/
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	@find .ci benchmarks notebooks tests wbc_helpers -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## the same, and the environment (setting it up again needs the network)
	@rm -rf $(call quoted,VENV)

.PHONY: setup
setup: ## make the environment of a user, unless it is there
	@sh .ci/setup $(call quoted,VENV) $(call quoted,PYTHON)

.PHONY: setup-dev
setup-dev: ## the same, with what tests and contributors need
	@sh .ci/setup $(call quoted,VENV) $(call quoted,PYTHON) dev
