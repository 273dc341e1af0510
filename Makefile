.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough; override with `make PYTHON=…`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
ENVIRONMENT := $(VENV)/.installed
CLUSTER := $(BIN)/python tests/cluster/cluster.py
IMAGES := operator trainer dataprep serve
# What `make kind` takes PyTorch from: its builds for CPUs. Empty: that for CUDA, as on a cluster with GPUs.
PYTORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# What `kind create cluster` is told besides, as in KIND_OPTIONS="--image kindest/node:v1.34.0".
KIND_OPTIONS ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: setup
setup: $(ENVIRONMENT) ## Create .venv with the packages pinned in requirements.lock

.PHONY: run
run: $(ENVIRONMENT) ## The main job: raw text to a talking model (examples/01-quickstart)
	$(BIN)/kindling run examples/01-quickstart

.PHONY: test
test: $(ENVIRONMENT) ## Everything that is tested: `lint`, and all tests, while the test cluster starts beside the first
	$(BIN)/python tests/cluster/run_tests.py

.PHONY: test-exhaustive
test-exhaustive: $(ENVIRONMENT) ## What repeats or widens the proofs of `test`: before a release
	$(BIN)/pytest --durations 40 -m exhaustive

.PHONY: check
check: lint ## What to run before each commit, in under two minutes: all but the slow tests
	$(BIN)/pytest --quiet --numprocesses 2 --dist worksteal -m "not slow and not exhaustive"

.PHONY: images
images: $(ENVIRONMENT) ## Build the images that changed, with buildah (root); a running test cluster gets them
	$(CLUSTER) images

.PHONY: cluster
cluster: $(ENVIRONMENT) ## Start the test cluster: Kubernetes, MinIO, KubeRay and the images, without Docker (root)
	$(CLUSTER) up

.PHONY: e2e
e2e: $(ENVIRONMENT) ## The tests on a real cluster: the one of `make cluster`, of KUBECONFIG, or one of their own
	E2E_KUBECONFIG="$$KUBECONFIG" $(BIN)/pytest tests/cluster -m "not exhaustive" \
		--numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: kind
kind: ## Kindling in kind, from this tree (Docker, kind and Helm); again after a change
	kind get clusters | grep -qx kindling || kind create cluster --name kindling $(KIND_OPTIONS)
	for image in $(IMAGES); do \
		docker build --build-arg PYTORCH_INDEX=$(PYTORCH_INDEX) \
			--file images/$$image/Dockerfile --tag kindling-$$image:dev . || exit 1; \
	done
	images/load.sh kindling $(IMAGES:%=kindling-%:dev)
	helm upgrade --install kindling charts/kindling --kube-context kind-kindling --namespace kindling --create-namespace \
		--set images.tag=dev --set minio.enabled=true --wait \
		--set-string operator.podAnnotations.image=$$(docker image inspect --format '{{.Id}}' kindling-operator:dev)

.PHONY: e2e-kind
e2e-kind: $(ENVIRONMENT) ## The quickstart on kind, command by command, policies and volumes; with Docker, kind and Helm, or as root
	KINDLING_E2E_KIND=1 PYTHONPATH=tests/cluster $(BIN)/python tests/kind/machine.py run \
		$(BIN)/pytest tests/kind --verbose --capture no -o timeout=5400 --session-timeout 5400

.PHONY: lint
lint: $(ENVIRONMENT) ## Format, style, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(ENVIRONMENT) ## Write the format that `lint` checks
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: docs
docs: $(VENV)/.documented ## The documentation as a site, dist/site; a broken link fails, and nothing is fetched
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build # not --quiet, with which a warning is no failure
	@echo "$(BIN)/python -m http.server --directory dist/site"

.PHONY: crds
crds: $(ENVIRONMENT) ## Generate crds/*.yaml, the chart's copies and docs/reference.md from the models
	$(BIN)/python -m kindling_api.crds
	cp crds/*.yaml charts/kindling/files/crds/
	$(BIN)/python -m kindling_api.reference

.PHONY: golden
golden: $(ENVIRONMENT) ## Write the golden files: what the operator renders, and what the chart does
	$(BIN)/python tests/golden/test_golden.py
	GOLDEN=write $(BIN)/pytest -q tests/chart -k golden

.PHONY: lock
lock: $(VENV)/.documented ## Write the versions in .venv to requirements.lock, and those that an image needs to its own
	$(BIN)/pip freeze --exclude-editable | grep -v ' @ ' > requirements.lock
	$(BIN)/python images/lock.py

$(ENVIRONMENT): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "Kindling needs Python 3.11 or newer; install it, or say make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; } \
		|| { rm -rf $(VENV); echo "No virtual environment could be made: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	$(BIN)/python .ci/install.py '.[dev]'
	@touch $@

$(VENV)/.documented: $(ENVIRONMENT)
	$(BIN)/python .ci/install.py '.[dev,docs]'
	@touch $@
