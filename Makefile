# `make help` lists the targets. Each sets up what it needs; after that nothing touches the network.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SERVICE_STAMP := $(VENV)/.installed-service
BENCH_VENV ?= .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed

export HF_HUB_OFFLINE = 1
export TRANSFORMERS_OFFLINE = 1
export HF_DATASETS_OFFLINE = 1
export DO_NOT_TRACK = 1
export TOKENIZERS_PARALLELISM = false

.DEFAULT_GOAL := help
.PHONY: help setup demo results results-smoke smoke test test-all test-service server server-down bench bench-setup golden easy-vqa check format docs clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with every version pinned (the other targets do this by themselves).

demo: $(STAMP) ## Run the whole method on the demo scenes and print the results.
	@$(BIN)/mbpo demo $(ARGS)

# Two processes of one thread each are faster than one of two; both say first how long it will take.
results results-smoke: export OMP_NUM_THREADS = 1
results: $(STAMP) ## Run the headline comparison over five seeds (deployments/grids/results.yaml).
	@$(BIN)/mbpo ablation --grid results --jobs $(WORKERS) --output runs/results $(ARGS)

results-smoke: $(STAMP) ## The same on a handful of questions, to see that it runs.
	@$(BIN)/mbpo ablation --grid results-smoke --jobs $(WORKERS) --output runs/results-smoke $(ARGS)

smoke: $(STAMP) ## Run every stage on a handful of rows and check what they wrote (the CI flow).
	@$(BIN)/mbpo smoke $(ARGS)

# One thread a test process: two torch threads on a busy two-core machine are slower than one.
test test-all: export OMP_NUM_THREADS = 1
test: $(STAMP) ## Run the tests.
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder $(ARGS)

test-all: $(STAMP) ## Run the tests on every model family and setting, marked slow, too (twenty minutes).
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder -m "slow or not slow" $(ARGS)

# Prefect server, worker, browser, PostgreSQL, S3 and ssh on this machine's loopback; installs what is missing.
test-service: export OMP_NUM_THREADS = 1
test-service: $(SERVICE_STAMP) ## Run the slow tests of the service (installs what they need, some Debian packages too).
	$(BIN)/python -m pytest -o addopts="-ra --strict-markers --import-mode=importlib" tests/service $(ARGS)

server: $(STAMP) ## Start a Prefect server with auth, a worker and the deployments, and print the URL.
	@$(BIN)/mbpo server up $(ARGS)

server-down: $(STAMP) ## End what make server started, and nothing else.
	@$(BIN)/mbpo server down $(ARGS)

# What the product is compared with lives in an environment of its own and is never a dependency.
bench golden: export OMP_NUM_THREADS = 1
bench: $(BENCH_STAMP) ## Time it against TRL, foolbox and generate() (ARGS="--quick grpo" for a glance).
	@$(BENCH_VENV)/bin/python -m benchmarks $(ARGS)

bench-setup: $(BENCH_STAMP)

golden: $(BENCH_STAMP) ## Have TRL compute tests/training/golden/trl.json anew.
	@$(BENCH_VENV)/bin/python -m benchmarks.golden

easy-vqa: export OMP_NUM_THREADS = 1
easy-vqa: $(STAMP) ## Write the second testbed and train its models (docs/easy_vqa.md).
	@$(BIN)/python -m benchmarks.easy_vqa $(ARGS)

check: $(STAMP) ## Lint, format, types and layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP) ## Rewrite the sources in the project's format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## Write the generated pages of docs/ anew.
	$(BIN)/python -m docs.generate

clean: ## Delete the environment and the caches; runs/ stays.
	rm -rf $(VENV) $(BENCH_VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip itself is pinned too: its age decides how deepspeed, a source package, is built.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "mbpo needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make PYTHON=python3.12"; exit 1; }
	@echo "Installing into $(VENV) (about two minutes; once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

$(SERVICE_STAMP): $(STAMP)
	@sh tests/service/packages.sh
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,service]'
	@touch $(SERVICE_STAMP)

$(BENCH_STAMP): benchmarks/requirements.txt pyproject.toml constraints.txt
	@echo "Installing into $(BENCH_VENV) (about three minutes; once)"
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -r benchmarks/requirements.txt -e .
	@touch $(BENCH_STAMP)
