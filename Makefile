# One table of commands. `make help` prints it; the README says what each is for.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help venv demo test test-fast clients parity soak bench bench-engine cluster-up cluster-down cluster-env images lint format lock manifests

VENV := .venv
PY := $(VENV)/bin/python
RUNTIME := .venv-runtime
CLIENTS := .venv-clients
LITELLM := .venv-litellm
CLUSTER ?= native
export CLUSTER

help: ## this table
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

venv: $(VENV)/.stamp ## .venv with everything from the locks
$(VENV)/.stamp: requirements/dev.txt
	@echo "venv: installing requirements/dev.txt"
	@python3 -m venv --clear $(VENV)
	@grep -oE '^uv==[^ ]+' $< | xargs $(PY) -m pip install --quiet --disable-pip-version-check
	@$(VENV)/bin/uv pip install --quiet --system-certs --python $(PY) --require-hashes -r $<
	@touch $@

demo: venv ## a cluster, the chart, the two example files, and the panda ranked first (MODEL=org/name for another model)
	@$(PY) -m dev.demo $(if $(MODEL),--model $(MODEL))

# What is quick to fail comes first; the second part needs what dev/cluster builds, the third all of a node.
FAST := tests/bench tests/crds tests/dev_cluster tests/dev_demo tests/rerank_api tests/rerank_gateway tests/rerank_operator tests/rerank_runtime
PARALLEL := --numprocesses=auto --dist=worksteal
test: lint $(CLIENTS)/frameworks/.stamp $(CLIENTS)/sdks/.stamp ## everything that must hold
	@$(PY) -m pytest $(PARALLEL) $(FAST)
	@$(PY) -m pytest --numprocesses=auto --dist=loadfile --durations=10 tests/parity tests/clients tests/apiserver tests/charts
	@$(PY) -m pytest --durations=25 tests/cluster

test-fast: lint ## what needs no cluster and starts few programs: under a minute
	@$(PY) -m pytest $(PARALLEL) -m "not slow" $(FAST)

lint: venv ## format, lint, types, import rules
	@$(VENV)/bin/ruff format --check --quiet . && $(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/mypy api/rerank_api gateway/rerank_gateway operator/rerank_operator runtime/rerank_runtime bench dev manifests parity soak tests
	@PYTHONPATH=api:gateway:operator:runtime $(VENV)/bin/lint-imports --no-cache --no-logo

format: venv ## rewrite the code in the house format
	@$(VENV)/bin/ruff format --quiet . && $(VENV)/bin/ruff check --quiet --fix .

# What the gateway's clients use. cohere 7 and cohere 5, httpx 0.27 and 0.28 cannot share an environment.
$(CLIENTS)/%/.stamp: requirements/clients-%.txt | $(VENV)/.stamp
	@echo "venv: installing $< into $(CLIENTS)/$*"
	@$(PY) -m venv --clear --without-pip $(CLIENTS)/$*
	@$(VENV)/bin/uv pip install --quiet --system-certs --python $(CLIENTS)/$*/bin/python --require-hashes -r $<
	@touch $@

clients: venv $(CLIENTS)/frameworks/.stamp $(CLIENTS)/sdks/.stamp ## the gateway under the client libraries that people use
	@$(PY) -m pytest --numprocesses=auto tests/clients

# vLLM for the CPU on this machine, as in the image.
$(RUNTIME)/.stamp: requirements/runtime-torch.txt requirements/runtime-cpu.txt runtime/image/cuda_stand_ins.py parity/make_venv.sh | $(VENV)/.stamp
	@echo "venv: installing vLLM for the CPU into $(RUNTIME)"
	@parity/make_venv.sh $(RUNTIME) $(VENV)/bin/uv
	@touch $@

parity: venv $(RUNTIME)/.stamp ## every family of rerankers against its model card; writes docs/parity.md
	@PYTHONPATH=.:api $(PY) -m parity --python $(RUNTIME)/bin/python --write docs/parity.md
	@PYTHONPATH=.:api $(PY) -m parity --python $(RUNTIME)/bin/python --split 2

# A proxy that people use, to measure beside ours.
$(LITELLM)/.stamp: requirements/bench-litellm.txt | $(VENV)/.stamp
	@echo "venv: installing $< into $(LITELLM)"
	@$(PY) -m venv --clear --without-pip $(LITELLM)
	@$(VENV)/bin/uv pip install --quiet --system-certs --python $(LITELLM)/bin/python --require-hashes -r $<
	@touch $@

soak: venv ## long acceptance runs, each with bounds (RUN=name for one, SOAK=0.1 for a trial)
	@$(PY) -m soak $(RUN)

bench: venv $(LITELLM)/.stamp ## the benchmarks; writes bench/RESULTS.md (RUN=name for one; scale only so: 40 minutes)
	@$(PY) -m bench $(RUN)

bench-engine: venv $(RUNTIME)/.stamp ## vLLM's settings on this machine's CPU; writes bench/ENGINE.md
	@PYTHONPATH=.:api:gateway $(PY) -m bench.vllm --python $(RUNTIME)/bin/python --write

cluster-up: ## the one-node cluster by itself
	@python3 -m dev.cluster up

cluster-down: ## stop it and leave nothing behind
	@python3 -m dev.cluster down

cluster-env: ## eval "$(make -s cluster-env)" points kubectl at it
	@python3 -m dev.cluster env

images: ## build the images from the tree and load them into the cluster
	@python3 -m dev.cluster images

manifests: venv ## render manifests/install.yaml from the chart
	@$(PY) -m manifests.render

# Hash-pinned and naming no index: they install from any index or mirror.
UV_COMPILE := $(VENV)/bin/uv pip compile --system-certs --quiet --generate-hashes --no-header --python-version 3.11 --universal
lock: ## rewrite requirements/*.txt from pyproject.toml
	@test -x $(VENV)/bin/uv || { python3 -m venv $(VENV) && $(PY) -m pip install --quiet uv; }
	$(UV_COMPILE) --extra operator -o requirements/operator.txt pyproject.toml
	$(UV_COMPILE) --extra gateway -o requirements/gateway.txt pyproject.toml
	$(UV_COMPILE) --extra operator --extra gateway --extra runtime --group dev -o requirements/dev.txt pyproject.toml
	$(UV_COMPILE) --override requirements/runtime-cpu.overrides -o requirements/runtime-cpu.txt requirements/runtime-cpu.in
	$(UV_COMPILE) --no-deps -o requirements/runtime-torch.txt requirements/runtime-torch.in
	$(UV_COMPILE) --no-deps --constraint requirements/runtime-cpu.txt -o requirements/runtime-cuda.txt requirements/runtime-cuda.in
	$(UV_COMPILE) -o requirements/build.txt requirements/build.in
	$(UV_COMPILE) -o requirements/demo-hub.txt requirements/demo-hub.in
	$(UV_COMPILE) -o requirements/bench-litellm.txt requirements/bench-litellm.in
	$(UV_COMPILE) -o requirements/clients-frameworks.txt requirements/clients-frameworks.in
	$(UV_COMPILE) -o requirements/clients-sdks.txt requirements/clients-sdks.in
