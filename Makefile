# Needs Python 3.11 or newer and make; every target does the set-up that it needs. `make help` lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# One word for the shell, whatever is in it: $(call quote,$(NAME)).
quote = '$(subst ','\'',$(1))'
# The same, and nothing where the variable is empty.
optional = $(if $(1),$(call quote,$(1)))

VENV := .venv
RUN := $(VENV)/bin/python
# Set-up is repeated when, and only when, the locked requirements change.
READY := $(VENV)/.ready-$(shell cksum < requirements/dev.txt | cut -d ' ' -f 1)
# checkov pins libraries that are years older than ours, so it lives apart; so do the auditors of the requirements.
AUDIT := .venv-audit
AUDIT_READY := $(AUDIT)/.ready-$(shell cksum < requirements/audit.txt | cut -d ' ' -f 1)
FUZZ := .venv-fuzz
FUZZ_READY := $(FUZZ)/.ready-$(shell cksum < requirements/fuzz.txt | cut -d ' ' -f 1)
SUPPLY := .venv-supply
SUPPLY_READY := $(SUPPLY)/.ready-$(shell cksum < requirements/supply.txt | cut -d ' ' -f 1)

LOAD := .venv-load
LOAD_READY := $(LOAD)/.ready-$(shell cksum < requirements/load.txt | cut -d ' ' -f 1)

DOCS := .venv-docs
DOCS_READY := $(DOCS)/.ready-$(shell cksum < requirements/docs.txt | cut -d ' ' -f 1)

# Tools that are no Python packages; each needs its own toolchain, and what needs it is skipped without.
TOOLS := .tools
PUBLISHED := tests/published.binpb
BUF := $(TOOLS)/node/node_modules/.bin/buf
NODE_READY := $(TOOLS)/node/.ready-$(shell cksum < requirements/node/package-lock.json | cut -d ' ' -f 1)

REMARK := $(TOOLS)/node/node_modules/.bin/remark --use ./$(TOOLS)/node/node_modules/remark-validate-links/index.js=repository:false
MARKDOWN = $(shell git ls-files '*.md')

KUBE_SCORE := $(TOOLS)/kube-score-v1.20.0
JAVA_READY := $(TOOLS)/java/.ready-$(shell cksum < tests/clients/java/pom.xml | cut -d ' ' -f 1)
MAVEN := mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1
CLIENTS := .venv-clients
CLIENTS_READY := $(CLIENTS)/.ready-$(shell cksum < requirements/clients.txt | cut -d ' ' -f 1)

# make up FRESH=1 RELOAD=1 is the friendly form of make up ARGS="--fresh --reload".
UP_ARGS := $(if $(FRESH),--fresh) $(if $(RELOAD),--reload) $(if $(STORE),--store $(call quote,$(STORE))) $(ARGS)
# Two workers: the suites start real services, and more of them than cores only makes each wait.
WORKERS ?= 2
FUZZ_MINUTES ?= 10
SCENARIO ?= shoppers
RATE ?=
MINUTES ?= 1
DOCS_ADDRESS ?= 127.0.0.1:8000
MKDOCS := NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs
UNIT := functions gateway proto events observability knative tests --ignore=tests/integration --ignore=tests/e2e \
	--ignore=tests/security --ignore=tests/attack --ignore=tests/fuzz --ignore=tests/crash --ignore=tests/clients
PYTEST := $(RUN) -m pytest -q
COMPILE := CUSTOM_COMPILE_COMMAND="make requirements" $(VENV)/bin/pip-compile --quiet --strip-extras \
	--allow-unsafe --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	--no-emit-options

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nOptions:\n  make up FRESH=1 RELOAD=1    empty the data first; restart parts when their source changes\n'
	@printf '  make up STORE=postgres      keep the state on PostgreSQL: at DATABASE_URL, or a private one of this machine\n'
	@printf '  make up STORE=dynamodb      keep the state on DynamoDB Local (needs Java and Maven)\n'
	@printf '  make up ARGS="--help"       all options of the local platform\n'
	@printf '  make test ARGS="-k saga"    options for pytest, also for test-unit, test-integration, test-e2e\n'

##@ Run
.PHONY: setup up demo migrate tables epoch backup restore
setup: $(READY) ## Install the locked requirements into .venv, as every target does that needs them

up: $(READY) ## Start the whole platform on this machine (Ctrl-C stops it)
	@exec $(RUN) -m knative.local $(UP_ARGS)

demo: $(READY) ## Place four orders on the running platform, and check that stock and money add up
	@exec $(RUN) -m knative.local.demo $(ARGS)

migrate: $(READY) ## Create or migrate the schemas on PostgreSQL (STORE_URL, STORE_ADMIN_URL, STORE_ADMIN_PASSWORD_FILE)
	@$(RUN) -m functions.runtime.store.postgres.migrate

tables: $(READY) ## Create the DynamoDB tables that STORE_URL names (dynamodb://prefix?endpoint=...)
	@$(RUN) -m functions.runtime.store.dynamodb.tables

epoch: $(READY) ## After a restore by the database itself: begin a new epoch, so that older tokens are refused (STORE_URL)
	@$(RUN) -m functions.runtime.store.epochs

backup: $(READY) ## Back up the state of the platform, running or not (TO=backups/<time>)
	@$(RUN) -m knative.local.backup backup $(call optional,$(TO)) $(ARGS)

restore: $(READY) ## Restore a backup (FROM=folder); the platform must be stopped
	@$(RUN) -m knative.local.backup restore $(call optional,$(FROM)) $(ARGS)

##@ Check
.PHONY: test test-unit test-integration test-e2e test-security test-attack test-chaos drill check-triggers test-crash test-clients test-new-service fuzz lint lint-documents lint-docs lint-protos audit audit-manifests bench bench-scale bench-cluster knee tune capacity load
test: $(READY) ## Run all tests: unit, manifests, integration, end to end, attacks, fuzzing, a few crashes
	@$(PYTEST) -n $(WORKERS) --dist worksteal $(UNIT) $(ARGS)
	@$(PYTEST) -n $(WORKERS) --dist loadfile tests/integration $(ARGS)
	@$(PYTEST) tests/e2e tests/security -m "not slow" $(ARGS)
	@$(PYTEST) tests/fuzz $(ARGS)
	@$(PYTEST) tests/crash -m "not slow" $(ARGS)
	@$(MAKE) test-clients

test-clients: $(READY) $(CLIENTS_READY) ## Generate clients in four languages, compile them, place an order with each (needs Java, Maven, Go, Node)
	@! command -v mvn >/dev/null || ! command -v javac >/dev/null || $(MAKE) $(JAVA_READY)
	@! command -v npm >/dev/null || $(MAKE) $(NODE_READY)
	@$(PYTEST) -o faulthandler_timeout=0 tests/clients $(ARGS)

test-unit: $(READY) ## Run the packages' own tests, and those of manifests and architecture
	@$(PYTEST) -n $(WORKERS) --dist worksteal $(UNIT) $(ARGS)

test-integration: $(READY) ## Run all services together in one process
	@$(PYTEST) -n $(WORKERS) --dist loadfile tests/integration $(ARGS)

test-e2e: $(READY) ## Drive a platform over HTTP: the one at E2E_BASE_URL, or its own
	@$(PYTEST) tests/e2e $(ARGS)

test-security: $(READY) ## Attack a running platform: its own, unless E2E_BASE_URL names one
	@$(PYTEST) tests/security tests/fuzz $(ARGS)

test-attack: $(READY) ## Attack the platform on a cluster from pods in it (KUBECONFIG, E2E_BASE_URL, E2E_HOST, E2E_GRPC_HOST)
	@$(PYTEST) -o faulthandler_timeout=0 tests/attack $(ARGS)

check-triggers: $(READY) ## Find subscribers of Knative's channels that have no Trigger (KUBECONFIG); REMOVE=1 removes them
	@$(RUN) -m knative.subscribers $(if $(REMOVE),--remove) $(ARGS)

test-chaos: $(READY) ## Kill pods of every kind of a cluster while orders flow (MINUTES=20, KUBECONFIG, E2E_BASE_URL, E2E_HOST)
	@$(RUN) -m tests.chaos --minutes $(or $(MINUTES),20) $(ARGS)

drill: $(READY) ## Destroy a platform, restore its backup, check it: a private one (STORE=postgres), or OVERLAY=... of a cluster
	@$(RUN) -m tests.drill $(if $(STORE),--store $(call quote,$(STORE))) $(if $(OVERLAY),--overlay $(call quote,$(OVERLAY))) $(ARGS)

fuzz: $(READY) $(FUZZ_READY) ## Fuzz the API, event functions, gRPC and the parsers for FUZZ_MINUTES=10
	@for parser in $$($(RUN) -c 'from tests.fuzz.parsers import PARSERS; print(*PARSERS)'); do \
		echo "$$parser"; \
		PYTHONPATH=$$(echo $(FUZZ)/lib/python*/site-packages) $(RUN) -m tests.fuzz.guided $$parser \
			$$(($(FUZZ_MINUTES) * 2)) build/fuzz || exit 1; \
	done
	@FUZZ_MINUTES=$(FUZZ_MINUTES) $(PYTEST) -o faulthandler_timeout=0 tests/fuzz $(ARGS)

test-crash: $(READY) ## Kill every part at every failpoint under load, and the broker every 2 s; events in disorder (minutes)
	@DISORDER_EXAMPLES=$(or $(DISORDER_EXAMPLES),100) \
		$(PYTEST) -o faulthandler_timeout=0 tests/crash $(wildcard tests/disorder) $(ARGS)

test-new-service: $(READY) ## Run all checks on a copy of this tree with a service from the template, and that platform
	@SHOP_WHOLE_NEW_SERVICE=1 $(PYTEST) -o faulthandler_timeout=0 tests/newservice $(ARGS)

lint: $(READY) ## Check style, types, the OpenAPI and AsyncAPI documents, the documentation, and the protos
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(MAKE) lint-documents
	@$(MAKE) lint-docs
	@$(MAKE) lint-protos

lint-documents: $(READY) ## Check the OpenAPI and AsyncAPI documents with Spectral, Redocly and AsyncAPI's parser (needs Node)
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
		$(MAKE) $(NODE_READY) && $(RUN) -m requirements.documents $(TOOLS)/node; \
	else echo "Skipped: without Node, Spectral and Redocly cannot check the OpenAPI and AsyncAPI documents."; fi

lint-docs: $(DOCS_READY) ## Build the documentation; check its links, and those of the READMEs (needs Node)
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
		$(MAKE) --quiet $(NODE_READY) && $(REMARK) --quiet --frail --no-stdout $(MARKDOWN); \
	else echo "Skipped: without Node, remark cannot check the links of the READMEs."; fi
	@$(MKDOCS) build --quiet --strict

lint-protos: ## Check the protos' style, and that they break no client of what was published (needs Node)
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
		$(MAKE) $(NODE_READY) && $(BUF) lint && $(BUF) breaking --against $(PUBLISHED); \
	else echo "Skipped: without Node, buf cannot check the protos."; fi

audit-manifests: $(READY) $(AUDIT_READY) ## Check rendered manifests and Dockerfiles with checkov and kube-score
	@$(RUN) -m tests.manifests.audit $(AUDIT)/bin/checkov
	@CHECKOV=$(AUDIT)/bin/checkov $(PYTEST) tests/manifests/test_audit.py
	@if command -v go >/dev/null; then $(MAKE) $(KUBE_SCORE) && $(RUN) -m tests.manifests.score $(KUBE_SCORE); \
	else echo "Skipped: without Go, kube-score cannot check the manifests."; fi

audit: $(READY) $(SUPPLY_READY) ## Check the requirements for known weaknesses and licences; write SBOMs into build/sbom
	@$(RUN) -m requirements.supply $(SUPPLY)/bin $(VENV) build/sbom

bench: $(READY) ## Measure the platform against bare servers and its budgets; write docs/benchmarks.md
	@$(RUN) -m tests.bench $(ARGS)

bench-cluster: $(READY) ## Measure the platform on a cluster: rates, latencies, CPU by part (KUBECONFIG, E2E_BASE_URL, E2E_HOST)
	@$(RUN) -m tests.bench.cluster $(ARGS)

bench-scale: $(READY) ## Compare the cost of use cases with 1,000 and with 1,000,000 orders (some minutes, 5 GB of disk)
	@$(RUN) -m tests.bench.scale $(ARGS)

knee: $(READY) ## Find the concurrency at which each service is full (needs PostgreSQL); write docs/capacity.md
	@$(RUN) -m tests.bench.knee $(ARGS)

tune: $(READY) ## Show each manifest's scaling target beside the one that its knee gives; ARGS=--write sets them
	@$(RUN) -m tests.bench.tune $(ARGS)

capacity: $(READY) ## Compute what 100, 1,000 and 10,000 orders a second need, and how wrong that is; write docs/capacity.md
	@$(RUN) -m tests.bench.capacity $(ARGS)

load: $(READY) $(LOAD_READY) ## Load a platform and check its invariants: SCENARIO=shoppers RATE=10 MINUTES=1 WEB=1 (E2E_BASE_URL, or its own)
	@$(RUN) -m tests.load --scenario $(call quote,$(SCENARIO)) $(if $(RATE),--rate $(call quote,$(RATE))) --minutes $(call quote,$(MINUTES)) \
		$(if $(WEB),--web) $(ARGS)

##@ Read
.PHONY: docs docs-serve
docs: $(DOCS_READY) ## Build the documentation into build/docs (diagrams need Node)
	@! command -v npm >/dev/null || $(MAKE) --quiet $(NODE_READY)
	@$(MKDOCS) build --quiet --strict $(ARGS)
	@echo "build/docs/index.html"

docs-serve: $(DOCS_READY) ## Show the documentation at 127.0.0.1:8000, and again at each change (DOCS_ADDRESS=...)
	@! command -v npm >/dev/null || $(MAKE) --quiet $(NODE_READY)
	@$(MKDOCS) serve --strict --dev-addr $(DOCS_ADDRESS) $(ARGS)

##@ Change
.PHONY: new-service remove-service format proto-gen publish-protos schemas dashboards requirements clean
new-service: $(READY) ## Add a service from the template: NAME=inventory ENTITY=stock_item
	@test -n $(call quote,$(NAME)) || { echo "Which one? make new-service NAME=inventory" >&2; exit 2; }
	@$(RUN) -m functions.template new $(call quote,$(NAME)) --entity $(call quote,$(ENTITY))
	@$(MAKE) proto-gen schemas

remove-service: $(READY) ## Remove a service from the template: NAME=inventory
	@test -n $(call quote,$(NAME)) || { echo "Which one? make remove-service NAME=inventory" >&2; exit 2; }
	@$(RUN) -m functions.template remove $(call quote,$(NAME))
	@$(MAKE) schemas

format: $(READY) ## Format the sources and fix what can be fixed
	@$(RUN) -m ruff check --fix-only --quiet .
	@$(RUN) -m ruff format .

proto-gen: $(READY) ## Generate the modules beside the .proto files
	@$(RUN) -m proto.generate

publish-protos: $(READY) ## Mark the current protos as published: changes that break their clients fail from then on
	@$(RUN) -m proto.generate $(PUBLISHED)

schemas: $(READY) ## Generate the events' JSON Schemas, the AsyncAPI document, EventTypes, Triggers and docs/configuration.md
	@$(RUN) -m events.schemas
	@$(RUN) -m knative.eventing
	@$(RUN) -m docs.configuration

dashboards: $(READY) ## Generate Grafana's dashboards
	@$(RUN) -m observability.grafana.generate

requirements: $(READY) ## Lock the requirements again; UPGRADE=1 takes the newest versions
	@$(COMPILE) $(if $(UPGRADE),--upgrade) -o requirements/dev.txt requirements/dev.in
	@$(COMPILE) -c requirements/dev.txt -o requirements/function.txt requirements/function.in
	@$(COMPILE) -c requirements/dev.txt -o requirements/gateway.txt requirements/gateway.in
	@$(COMPILE) -c requirements/dev.txt -o requirements/setup.txt requirements/setup.in
	@$(COMPILE) -c requirements/dev.txt -o requirements/e2e.txt requirements/e2e.in
	@$(COMPILE) -c requirements/dev.txt -o requirements/load.txt requirements/load.in
	@for apart in audit supply fuzz clients docs; do \
		$(COMPILE) $(if $(UPGRADE),--upgrade) -o requirements/$$apart.txt requirements/$$apart.in || exit 1; \
	done

clean: ## Remove everything generated here: environments, caches and the platform's data
	@rm -rf $(VENV) $(AUDIT) $(SUPPLY) $(FUZZ) $(LOAD) $(CLIENTS) $(DOCS) .data .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist $(TOOLS)
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Ship
# docker, podman or buildah, whichever is there. BUILD_OPTIONS goes to it, e.g. --build-arg PYTHON_IMAGE=...@sha256:...
# (Docker's command without its daemon does not count.)
BUILDER ?= $(firstword $(foreach tool,docker podman buildah,$(shell $(tool) info >/dev/null 2>&1 && echo $(tool))))
# Knative looks up no digest for images under dev.local, so a cluster can run them without a registry.
REGISTRY ?= dev.local
TAG ?= dev
DOMAINS := $(sort $(notdir $(patsubst %/main.py,%,$(wildcard functions/*/main.py))))
IMAGES := $(DOMAINS:%=functions-%) gateway dead-letters setup e2e load
IMAGE = $(REGISTRY)/shop/$*:$(TAG)
PINS := knative/components/production/kustomization.yaml
DIGESTS := build/digests

.PHONY: build-all push-all pin-all pin-others
build-all: $(IMAGES:%=build-%) ## Build all images (REGISTRY=dev.local TAG=dev BUILDER=docker|podman|buildah)

push-all: $(IMAGES:%=push-%) ## Push the images to REGISTRY

pin-all: pin-others $(DOMAINS:%=pin-functions-%) pin-gateway pin-dead-letters pin-setup ## Push the images, and pin their digests in the production component

pin-others: builder $(READY) ## Pin the images of others by digest: base image, observability, compose.yaml
	@$(RUN) -m requirements.images $(BUILDER)

DOCKERFILE.gateway := gateway/Dockerfile
DOCKERFILE.dead-letters := events/Dockerfile
DOCKERFILE.setup := knative/setup/Dockerfile
DOCKERFILE.e2e := tests/e2e/Dockerfile
DOCKERFILE.load := tests/load/Dockerfile

build-%: builder
	@$(BUILDER) build $(BUILD_OPTIONS) -f $(or $(DOCKERFILE.$*),functions/Dockerfile) \
		$(if $(DOCKERFILE.$*),,--build-arg FUNCTION=$(*:functions-%=%)) -t $(call quote,$(IMAGE)) .

# podman and buildah write down what the registry calls the image; docker knows it after the push.
push-%: builder
	@mkdir -p $(DIGESTS)
	@case "$(BUILDER)" in \
	*docker) $(BUILDER) push $(call quote,$(IMAGE)) && $(BUILDER) image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' $(call quote,$(IMAGE)) | \
		grep -F '$(REGISTRY)/shop/$*@' | cut -d @ -f 2 > $(DIGESTS)/$* ;; \
	*) $(BUILDER) push --digestfile $(DIGESTS)/$* $(call quote,$(IMAGE)) ;; \
	esac

pin-%: push-%
	@grep -Eqx 'sha256:[0-9a-f]{64}' $(DIGESTS)/$* || { echo "No digest of $(IMAGE) is known." >&2; exit 1; }
	@sed -i.old "/name: shop\/$*$$/,/digest:/ { s|newName: .*|newName: $(REGISTRY)/shop/$*|; s|digest: .*|digest: $$(cat $(DIGESTS)/$*)|; }" \
		$(PINS) && rm -f $(PINS).old

# For skaffold's custom builder: it says which image, and whether to push it.
ship-%: build-%
	@[ "$$PUSH_IMAGE" != true ] || $(BUILDER) push $(call quote,$(IMAGE))

.PHONY: builder
builder:
	@test -n "$(BUILDER)" || { echo "Building images needs docker, podman or buildah." >&2; exit 1; }

# The first Python of at least 3.11; PYTHON=... chooses another.
$(READY): requirements/dev.txt
	@for python in $(call optional,$(PYTHON)) python3.11 python3.12 python3.13 python3.14 python3 python; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
		python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "This needs Python 3.11 or newer; found: $$(python3 --version 2>/dev/null || echo none)." >&2; \
		echo "Install one (python.org, your package manager, pyenv), or name one: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	$(RUN) -m pip --version >/dev/null 2>&1 || \
		{ echo "Making $(VENV) with $$("$$python" --version)"; "$$python" -m venv --clear $(VENV); } && \
	$(RUN) requirements/install.py requirements/dev.txt && \
	rm -f $(VENV)/.ready-* && touch $@

$(AUDIT_READY): requirements/audit.txt | $(READY)
	@$(RUN) -m venv --clear $(AUDIT) && $(AUDIT)/bin/python requirements/install.py requirements/audit.txt && touch $@

$(LOAD_READY): requirements/load.txt | $(READY)
	@$(RUN) -m venv --clear $(LOAD) && $(LOAD)/bin/python requirements/install.py requirements/load.txt && touch $@

# Where there is no wheel of atheris, the rest of the fuzzing is done without it.
$(FUZZ_READY): requirements/fuzz.txt | $(READY)
	@$(RUN) -m venv --clear $(FUZZ) && { $(FUZZ)/bin/python requirements/install.py requirements/fuzz.txt || true; } && touch $@

$(NODE_READY): requirements/node/package-lock.json requirements/node/package.json
	@mkdir -p $(TOOLS)/node && cp requirements/node/package*.json $(TOOLS)/node/ && \
		echo "Installing buf, Spectral, Redocly, remark and the TypeScript compiler (once)" && cd $(TOOLS)/node && \
		npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2 && rm -f .ready-* && touch $(notdir $@)

$(KUBE_SCORE):
	@echo "Building kube-score (once)" && mkdir -p $(TOOLS)/bin && GOBIN=$(call quote,$(CURDIR)/$(TOOLS)/bin) \
		go install github.com/zegl/kube-score/cmd/kube-score@$(@:$(TOOLS)/kube-score-%=%) && mv $(TOOLS)/bin/kube-score $@

$(JAVA_READY): tests/clients/java/pom.xml
	@echo "Getting openapi-generator and the libraries of its Java client (once)" && rm -rf $(TOOLS)/java && \
		$(MAVEN):copy -Dartifact=org.openapitools:openapi-generator-cli:7.25.0 -Dmdep.stripVersion=true \
			-DoutputDirectory=$(call quote,$(CURDIR)/$(TOOLS)/java) && \
		$(MAVEN):copy-dependencies -f tests/clients/java/pom.xml -DoutputDirectory=$(call quote,$(CURDIR)/$(TOOLS)/java/lib) && touch $@

$(CLIENTS_READY): requirements/clients.txt | $(READY)
	@$(RUN) -m venv --clear $(CLIENTS) && $(CLIENTS)/bin/python requirements/install.py requirements/clients.txt && touch $@

$(DOCS_READY): requirements/docs.txt | $(READY)
	@$(RUN) -m venv --clear $(DOCS) && $(DOCS)/bin/python requirements/install.py requirements/docs.txt && touch $@

$(SUPPLY_READY): requirements/supply.txt | $(READY)
	@$(RUN) -m venv --clear $(SUPPLY) && $(SUPPLY)/bin/python requirements/install.py requirements/supply.txt && touch $@
