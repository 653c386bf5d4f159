# make demo: find the experts of real models, compare them with human judgement, and put every claim to the test.
# make test: a case of each test; with CASES=all all of them, and with ARGS="-m unit" those of arrays and tables alone.
# Both make .venv and install what they need from this project's own files.
# make browser: the page of `expertlens explore` in Chromium: Debian's, installed if there is none, or BROWSER_PATH.
# make wheel: build dist/*.whl, install it into an empty environment, and run its command there.
# make docs: build the documentation into site/, and run its notebooks (NOTEBOOKS=false: shown as they are).
# make -j 2 ready: install what all of these need, at once; each of them also does so by itself.
# make accelerators: compile for TPUs and GPUs that aren't there, into .venv-accelerators; ARGS="v5e:2x2 h100" for more.

PYTHON ?= python3
VENV ?= .venv
ACCELERATORS ?= .venv-accelerators
SIZE ?= full
CASES ?= one
NOTEBOOKS ?= true
WORKDIR ?= runs/demo
# Python compiles what is imported, a tenth of what is installed; pip would compile all.
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: demo demo-minilm demo-lenslet test lint browser wheel docs accelerators ready clean

# The two models share nothing, so each has a core. Lenslet's progress is on the screen, MiniLM's in a file.
demo: $(VENV)/.demo $(VENV)/.ratings
	@$(MAKE) --no-print-directory -j 2 demo-minilm demo-lenslet
	$(VENV)/bin/expertlens explore $(WORKDIR)/lenslet

demo-minilm: $(VENV)/.demo $(VENV)/.ratings
	@mkdir -p $(WORKDIR)
	@echo "MiniLM is looked into at the same time; its table comes when it is done. How far it is: $(WORKDIR)/minilm.log"
	@$(VENV)/bin/python -m experiments.alignment --config=configs/minilm.py:$(SIZE) --workdir=$(WORKDIR)/minilm \
	  >$(WORKDIR)/minilm.txt 2>$(WORKDIR)/minilm.log && cat $(WORKDIR)/minilm.txt || \
	  { tr '\r' '\n' <$(WORKDIR)/minilm.log | tail -n 30 >&2; echo "MiniLM stopped." >&2; exit 1; }

demo-lenslet: $(VENV)/.demo $(VENV)/.ratings
	$(VENV)/bin/python -m experiments.reproduce --config=configs/demo.py:$(SIZE) --workdir=$(WORKDIR)/lenslet

# A worker that crashes ends the run: xdist would wait for its replacement for ever.
test: $(VENV)/.test $(VENV)/.ratings
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --cases=$(CASES) $(ARGS)

browser: $(VENV)/.browser
	.ci/browser $(VENV)/bin/python -m pytest -m browser tests/explorer --cases=$(CASES) $(ARGS)

lint: $(VENV)/.lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ty check --python $(VENV)

wheel: $(VENV)/.demo
	.ci/wheel $(VENV)

# Notebooks share one table of expertise, in a folder for temporary files that is this build's own.
docs: $(VENV)/.docs
	rm -rf .cache/mkdocs-jupyter  # which is by notebook, and would not see that the package changed
	made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && \
	  TMPDIR="$$made" RUN_NOTEBOOKS=$(NOTEBOOKS) NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict
	@echo "The documentation is in site/: open site/index.html, or run $(VENV)/bin/mkdocs serve."

# Without ARGS, the small set as a test; with them, the benchmark on the targets and options that they name.
accelerators: $(ACCELERATORS)/.made $(VENV)/.test
	$(ACCELERATORS)/bin/python $(if $(ARGS),benchmarks/compile_for.py $(ARGS),-m pytest -s -m accelerators tests/benchmarks)

ready: $(VENV)/.ready $(ACCELERATORS)/.made
	$(MAKE) $(VENV)/.ratings

$(VENV)/.ready: $(VENV)/.made setup.cfg constraints.txt requirements-minilm.txt
	@echo "Installing expertlens_jax, and what tests, documentation and lint need, into $(VENV) ..."
	$(PIP) -c constraints.txt -e '.[test,browser,docs,dev]'
	$(PIP) --no-deps -r requirements-minilm.txt
	touch $(VENV)/.demo $(VENV)/.test $(VENV)/.browser $(VENV)/.docs $(VENV)/.lint $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || \
	  { echo "expertlens_jax needs Python 3.11 to 3.14; $(PYTHON) is another. Run: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.made setup.cfg constraints.txt requirements-minilm.txt
	@echo "Installing expertlens_jax into $(VENV) ..."
	$(PIP) -c constraints.txt -e .
	$(PIP) --no-deps -r requirements-minilm.txt
	touch $@

# SimLex-999 rides in gensim's wheel, which isn't installed for it: Python 3.14 has none, and it is a zip file. Its ratings
# are put where el.load_ratings looks; where that fails, el.load_ratings fetches them from the web.
$(VENV)/.ratings: $(VENV)/.demo
	@echo "Fetching the ratings of SimLex-999 ..."
	@$(VENV)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
	  --python-version 3.13 --dest $(VENV)/gensim $(shell grep '^gensim==' constraints.txt) && \
	  $(VENV)/bin/python -m expertlens_jax.data.gensim_wheel $(VENV)/gensim && rm -r $(VENV)/gensim && touch $@ || \
	  echo "There was no wheel of gensim to take them from; they will be fetched from the web."

$(VENV)/.test: $(VENV)/.demo
	@echo "Installing the tests' requirements into $(VENV) ..."
	$(PIP) -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/.browser: $(VENV)/.test
	@echo "Installing playwright into $(VENV) ..."
	$(PIP) -c constraints.txt -e '.[browser]'
	touch $@

$(VENV)/.docs: $(VENV)/.demo
	@echo "Installing what builds the documentation into $(VENV) ..."
	$(PIP) -c constraints.txt -e '.[docs]'
	touch $@

# Types are checked against those of all that the package and its tests import.
$(VENV)/.lint: $(VENV)/.test
	$(PIP) -c constraints.txt -e '.[live,dev]'
	touch $@

# The compilers stand apart, so that jax in $(VENV) doesn't find them; all else is read from there.
$(ACCELERATORS)/.made: $(VENV)/.made requirements-accelerators.txt
	@echo "Installing the compilers for TPUs and GPUs into $(ACCELERATORS) ..."
	$(VENV)/bin/python -m venv $(ACCELERATORS)
	$(VENV)/bin/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > $$($(ACCELERATORS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth
	$(ACCELERATORS)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
	  -r requirements-accelerators.txt
	touch $@

clean:
	rm -rf $(VENV) $(ACCELERATORS) build site *.egg-info
