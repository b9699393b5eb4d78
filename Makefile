# Two commands for newcomers: `make demo` and `make test`. Both make what they need first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PLUGINS := $(sort $(wildcard plugins/ssrl-*))
SEED ?= 1
# Interpreters that a release is tried with.
PYTHONS ?= python3.11 python3.12

.PHONY: demo test test-fast test-trainers test-vllm test-all bench docs release lint install clean

demo: install  ## a small model, its cold start, GRPO on five tasks, on the CPU
	$(BIN)/python examples/demo/demo.py --seed $(SEED)

# Scoring functions that the tests of benchmarks compare with; never imported as packages.
ORACLES := .oracles/installed

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

test: install $(ORACLES)  ## the tests of core and plugins, with real training runs through verl
	$(PYTEST) -m "not slow"

test-fast: install $(ORACLES)  ## without the training runs
	$(PYTEST) -m "not slow and not training"

test-trainers: $(VENV)-trainers/installed  ## TRL and verifiers: two steps of GRPO, ten rollouts, rewards equal to ours
	$(VENV)-trainers/bin/python -m pytest tests/trainers

test-vllm: $(VENV)-vllm/installed  ## vLLM on the CPU: evaluation, and GRPO through verl with its rollouts
	$(VENV)-vllm/bin/python -m pytest tests/vllm

test-all: install $(ORACLES)  ## also what takes long and adds little; before a release
	$(PYTEST)

bench: install  ## what samples, exports, rewards and starts cost, against what they must; one table at the end
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/benchmarks -q --benchmark-timer=time.process_time --benchmark-quiet

docs: $(VENV)-docs/installed  ## the documentation as a site in site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/python -m mkdocs build --quiet

release: $(VENV)-release/installed  ## everything of a release but the upload: make release VERSION=0.2.0
	$(VENV)-release/bin/python .github/release.py "$(VERSION)" $(PYTHONS:%=--python %)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml $(PLUGINS:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v not in ((3, 11), (3, 12)) and "Python 3.11 or 3.12 is needed, this is %d.%d: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q --progress-bar on --group test -e ".[train,benchmarks,export,sources]" $(PLUGINS:%=-e ./%)
	@touch $@

$(VENV)-docs/installed: pyproject.toml $(PLUGINS:%=%/pyproject.toml)
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install -q --upgrade pip
	$(VENV)-docs/bin/python -m pip install -q --group docs -e . $(PLUGINS:%=-e ./%)
	@touch $@

$(VENV)-release/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install -q --upgrade pip
	$(VENV)-release/bin/python -m pip install -q --group release
	@touch $@

$(VENV)-trainers/installed: $(VENV)/installed tests/environment.sh tests/trainers/requirements.txt
	tests/environment.sh $(VENV)-trainers $(VENV) tests/trainers/requirements.txt
	@touch $@

$(VENV)-vllm/installed: $(VENV)/installed tests/environment.sh tests/vllm/environment.sh tests/vllm/requirements.txt
	tests/vllm/environment.sh $(VENV)-vllm $(VENV)
	@touch $@

.oracles/installed: tests/oracles.txt
	-$(BIN)/python -m pip install -q --no-deps --upgrade --target .oracles -r tests/oracles.txt && touch $@

clean:
	rm -rf $(VENV) $(VENV)-trainers $(VENV)-vllm $(VENV)-docs $(VENV)-release .oracles runs site
