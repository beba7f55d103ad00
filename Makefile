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
# A module is compiled once, and not by every process that imports it: that was most of a start.
unexport PYTHONDONTWRITEBYTECODE
export MODEL TRACE META
# MODEL, TRACE and META reach the configuration as JSON, whatever characters the paths hold.
MEASUREMENT := import json, os; print(json.dumps({k: os.environ[v] for k, v in (("model", "MODEL"), ("data", "TRACE"), ("meta", "META")) if os.environ.get(v)}))

.PHONY: help run tiny test test-all release lab infer serve bench campaign lint report docs setup

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: setup ## the whole workflow, from configuration to verdict ([MODEL=...] ARGS="..." goes to snakemake: --verbose shows what it says)
	@$(IN) snakemake $(ARGS) $(if $(MODEL),--config "models=[$(MODEL)]")

tiny: setup ## the same in eight minutes: shows that everything runs, not that it is any good
	@$(IN) snakemake --configfile config/test.yaml $(ARGS)

infer: setup ## infer a measurement: make infer [MODEL=ecsfm] TRACE=path [META=path.yaml]
	@$(IN) snakemake measurement $(ARGS) --config "measurement=$$($(IN) python -c '$(MEASUREMENT)')"

serve: setup ## models over HTTP, and a page, at http://127.0.0.1:8080 (ARGS="--port 8000" goes to touchstone serve)
	@$(IN) touchstone serve $(ARGS)

test: setup ## the tests of every behaviour
	@$(IN) pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not nightly" $(ARGS)

test-all: setup ## all tests, the long ones included
	@$(IN) pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

release: setup ## train, certify and write the artefact that answers where nothing was trained: hours (MODEL=...)
	@test -n "$(MODEL)" || { echo "make release: name a model, as in make release MODEL=ecsfm" >&2; exit 1; }
	@$(IN) snakemake --configfile config/release.yaml --config "models=[$(MODEL)]" $(ARGS)
	@$(IN) python workflow/scripts/release.py "$(MODEL)" config/release.yaml

lab: setup ## JupyterLab on the notebooks
	@JUPYTER_PREFER_ENV_PATH=1 $(IN) jupyter lab notebooks $(ARGS)

bench: setup ## benchmarks: BENCH=simulator (default), inference, reference, ablation, guardrail, memory, measured, control, interface, regimes, galaxy, escalation, serving or same; ARGS="--help" explains
	@$(IN) python benchmarks/bench_$(BENCH).py $(ARGS)

campaign: setup ## the service under load: kills, a soak, fuzz of its schema, attacks (ARGS="kill --rounds 100": one of them, larger)
	@$(IN) python benchmarks/campaign.py $(ARGS)

lint: setup ## types, and style of code, rules and notebooks
	@$(IN) ruff check .
	@$(IN) ruff format --check .
	@$(IN) ty check
	@$(IN) snakefmt --check Snakefile workflow
	@$(IN) snakemake --lint
	@$(IN) nbstripout --verify notebooks/*.ipynb

report: setup ## results/bundle.html: every figure with the rule that made it
	@$(IN) snakemake
	@$(IN) snakemake --report results/bundle.html

docs: | $(UV) ## site/index.html: pages from docstrings and notebooks, which read with the network off
	@$(UV) run --isolated --frozen --only-group docs python docs/notebooks.py notebooks/*.ipynb
	@$(UV) run --isolated --frozen --only-group docs zensical build --clean --strict

setup: .venv/.complete

.venv/.complete: pyproject.toml uv.lock .python-version | $(UV)
	@$(UV) sync --frozen
	@touch $@

.uv/bin/uv:
	@$(PYTHON) -m venv .uv 2> /dev/null && .uv/bin/python -m pip --quiet install 'uv>=0.9' \
		|| { rm -rf .uv; $(PYTHON) -m pip --quiet install --target .uv 'uv>=0.9'; } \
		|| { rm -rf .uv; echo "make: needs uv, or a $(PYTHON) with venv or pip" >&2; exit 1; }
