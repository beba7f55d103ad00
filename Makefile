# Everything a user does. `make` sets up what is missing and runs the workflow.
.DEFAULT_GOAL := run
SHELL := bash
PYTHON ?= python3
# uv comes from the path, or is put into .uv with whatever Python 3 there is.
UV := $(shell command -v uv 2> /dev/null || echo .uv/bin/uv)
IN := $(UV) run --frozen --no-sync
ARGS ?=
BENCH ?= simulator
# PyTensor would keep its cache in the home directory.
export PYTENSOR_FLAGS ?= base_compiledir=.pytensor
export TRACE META
# TRACE and META reach the configuration as JSON, whatever characters the paths hold.
MEASUREMENT := import json, os; print(json.dumps({k: os.environ[k.upper()] for k in ("trace", "meta") if os.environ.get(k.upper())}))

.PHONY: help run test lab infer bench lint report setup

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: setup ## the whole workflow, from configuration to verdict (ARGS="..." goes to snakemake)
	@$(IN) snakemake $(ARGS)

infer: setup ## infer a measurement: make infer TRACE=path [META=path.yaml]
	@$(IN) snakemake measurement $(ARGS) --config "infer=$$($(IN) python -c '$(MEASUREMENT)')"

test: setup ## all tests, two files at a time
	@$(IN) pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lab: setup ## JupyterLab on the notebooks
	@JUPYTER_PREFER_ENV_PATH=1 $(IN) jupyter lab notebooks $(ARGS)

bench: setup ## benchmarks: BENCH=simulator (default), inference, reference, ablation or memory; ARGS="--help" explains
	@$(IN) python benchmarks/bench_$(BENCH).py $(ARGS)

lint: setup ## style of code, rules and notebooks
	@$(IN) ruff check .
	@$(IN) ruff format --check .
	@$(IN) snakefmt --check Snakefile workflow
	@$(IN) snakemake --lint
	@$(IN) nbstripout --verify notebooks/*.ipynb

report: setup ## results/bundle.html: every figure with the rule that made it
	@$(IN) snakemake
	@$(IN) snakemake --report results/bundle.html

setup: .venv/.complete

.venv/.complete: pyproject.toml uv.lock .python-version | $(UV)
	@$(UV) sync --frozen
	@touch $@

.uv/bin/uv:
	@$(PYTHON) -m venv .uv 2> /dev/null && .uv/bin/python -m pip --quiet install 'uv>=0.9' \
		|| { rm -rf .uv; $(PYTHON) -m pip --quiet install --target .uv 'uv>=0.9'; } \
		|| { rm -rf .uv; echo "make: needs uv, or a $(PYTHON) with venv or pip" >&2; exit 1; }
