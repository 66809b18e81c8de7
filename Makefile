# NeXtVLAD Pipeline. `make help` lists the targets.

CONFIG ?= pipeline/configs/sample.yaml
DATA ?=
SET ?=
TARGET ?= local
RUNS ?= runs
IMAGE ?=
IMAGES ?=
BASE_IMAGE ?=
BEAM_IMAGE ?=
REGISTRY ?=
PUSH ?=
ANEW ?=
CA ?=
MEMORY ?=
GPU ?=
OUTPUT ?= build
MODEL ?=
PORT ?= 8080
PREDICTIONS ?=
PREDICT ?=
VIDEO ?=
VIDEOS ?=
EXAMPLES ?= examples
EXTRACT ?=
WEIGHTS ?= weights
DATAFLOW ?=
# Vertex AI: whose project, on what, and what follows the export.
PROJECT ?=
REGION ?=
BUCKET ?=
SERVICE_ACCOUNT ?=
NETWORK ?=
KMS_KEY ?=
VERTEX ?=
DISPLAY_NAME ?=
PRICES ?=
HOURS ?=
DRY_RUN ?=
ENDPOINT ?=
TUNE ?=
TRIALS ?= 20
PARALLEL ?= 2
VERTEX_NAME ?=
APPLY ?=
SETUP ?=
# Kubeflow Pipelines: which one, as whom, and its pods.
KFP_HOST ?=
KFP_TOKEN_FILE ?=
KFP_NAMESPACE ?=
KFP_CA ?=
KFP ?=
EXPERIMENT ?= nextvlad
KIND_PORT ?= 8888
MOUNTS ?=
RUN ?=
KFP_NAME ?=
WHEN ?=
PYTEST ?=
UPGRADE ?=
# Each worker is a process with TensorFlow: up to 2 GB.
WORKERS ?= --numprocesses=auto --maxprocesses=4 --dist=worksteal

PY = .venv/bin/python
UV = .venv/uv/bin/uv
LOCK = $(UV) pip compile --quiet --generate-hashes --no-header --universal --python-version 3.11 \
	--annotation-style line $(if $(UPGRADE),--upgrade)

KFP_FLAGS = --host "$(KFP_HOST)" --token-file "$(KFP_TOKEN_FILE)" --namespace "$(KFP_NAMESPACE)" \
	--ca "$(KFP_CA)" --experiment "$(EXPERIMENT)" --image "$(IMAGE)" --kfp $(KFP)
MANAGE = $(PY) -m pipeline.clusters.manage
VERTEX_FLAGS = --project "$(PROJECT)" --region "$(REGION)" --bucket "$(BUCKET)" \
	--service-account "$(SERVICE_ACCOUNT)" --network "$(NETWORK)" --kms-key "$(KMS_KEY)" \
	--registry "$(REGISTRY)" --vertex $(VERTEX) --dataflow $(DATAFLOW)
RUN_FLAGS = --display-name "$(DISPLAY_NAME)" --prices "$(PRICES)" --hours $(HOURS) $(if $(DRY_RUN),--dry-run)
# People have PROJECT or REGION in their environments: they count where Vertex AI is meant, and
# elsewhere only what stands on the command line.
ON_LINE = $(filter command,$(foreach one,PROJECT REGION BUCKET SERVICE_ACCOUNT NETWORK KMS_KEY VERTEX DATAFLOW \
	REGISTRY DISPLAY_NAME PRICES HOURS DRY_RUN,$(origin $(one))))
MANAGE_VERTEX = $(PY) -m pipeline.vertex.manage

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev pipeline-run predict extract videos-run serve images compile kind-up kind-down kind-smoke kfp-upload kfp-schedule kfp-runs kfp-follow kfp-terminate vertex-setup vertex-check vertex-list vertex-follow vertex-cancel vertex-schedule vertex-tune vertex-endpoint vertex-rollback vertex-undeploy test test-slow test-docker benchmark lint format lock clean clean-all

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  pipeline-run takes CONFIG=file.yaml DATA=folder SET=\"epochs=3 model.groups=4\" RUNS=folder"
	@echo "  and TARGET=docker MEMORY=\"train=6g\" GPU=1 to run each step in a container"
	@echo "  and TARGET=kind (after kind-up MOUNTS=folder), or TARGET=kfp KFP_HOST=http://… IMAGE=name-{kind}:tag"
	@echo "  KFP=\"gpus=1 volumes=claim:/data\" KFP_TOKEN_FILE KFP_NAMESPACE KFP_CA EXPERIMENT, as all kfp- targets"
	@echo "  and TARGET=vertex PROJECT=id REGION=us-central1 BUCKET=gs://name SERVICE_ACCOUNT NETWORK KMS_KEY"
	@echo "  VERTEX=\"machine=g2-standard-8 accelerator=NVIDIA_L4 spot=true\" DATAFLOW DRY_RUN=1 HOURS=\"train=8\" PRICES=file"
	@echo "  images takes IMAGES=\"cpu gpu serving dataflow\" BASE_IMAGE=name BEAM_IMAGE=name CA=file.pem"
	@echo "  REGISTRY=prefix PUSH=1 ANEW=1"
	@echo "  predict takes MODEL=folder DATA=shards PREDICTIONS=folder RUNS=folder PREDICT=\"--segments\""
	@echo "  or VIDEO=clip.mp4 WEIGHTS=folder: labels and a timeline of one video, PREDICT=\"--random-weights\""
	@echo "  extract takes VIDEOS=list.csv EXAMPLES=folder WEIGHTS=folder EXTRACT=\"--features youtube8m\""
	@echo "  videos-run takes VIDEOS MODEL WEIGHTS RUNS SET=\"features=imagenet max_failed=0.1\""
	@echo "  serve takes MODEL=folder PORT=8080 RUNS=folder"
	@echo "  compile takes CONFIG, DATA and SET as defaults of the parameters, IMAGE=name-{kind}:tag,"
	@echo "  and DATAFLOW=\"project=p region=r temp_location=gs://b/t\" to run the statistics step there"

setup: ## make .venv from the locked requirements (skipped when nothing changed)
	@requirements/install.sh cpu

setup-dev: ## the same, with what tests and checks need
	@requirements/install.sh dev

pipeline-run: setup ## set up and run the whole pipeline on this machine (built-in sample by default)
	@$(PY) -m pipeline.run --config "$(CONFIG)" --data "$(DATA)" --runs "$(RUNS)" --set $(SET) \
		--target "$(TARGET)" --memory $(MEMORY) $(if $(GPU),--gpu) $(KFP_FLAGS) \
		$(if $(filter vertex,$(TARGET))$(ON_LINE),$(VERTEX_FLAGS) $(RUN_FLAGS))

serve: setup ## serve the newest run's model (MODEL=folder) over HTTP, with an example to try
	@exec env TF_CPP_MIN_LOG_LEVEL=2 $(PY) -m components.serving --model "$(MODEL)" --runs "$(RUNS)" \
		--port "$(PORT)" --example build/request.json

images: setup ## build the container images of this code (needs Docker), with sizes and bills of materials
	@$(PY) -m pipeline.images $(IMAGES) --base-image "$(BASE_IMAGE)" --beam-image "$(BEAM_IMAGE)" \
		--registry "$(REGISTRY)" --output "$(OUTPUT)" $(if $(PUSH),--push) $(if $(ANEW),--anew) $(if $(CA),--ca "$(CA)")

compile: setup ## write the compiled pipelines for Vertex AI and for KFP on Kubernetes into build/
	@$(PY) -m pipeline.compile --output "$(OUTPUT)" --image "$(IMAGE)" \
		--config "$(if $(filter file,$(origin CONFIG)),,$(CONFIG))" \
		--set $(SET) $(if $(DATA),"data_source=$(DATA)") $(if $(ON_LINE),$(VERTEX_FLAGS))

kind-up: setup ## have Kubeflow Pipelines on a cluster of this machine (after make images; needs kind and kubectl)
	@$(PY) -m pipeline.clusters.kind up --port "$(KIND_PORT)" --runs "$(RUNS)" --mounts $(MOUNTS)

kind-down: setup ## remove that cluster; data and results stay
	@$(PY) -m pipeline.clusters.kind down

kind-smoke: setup ## see whether it (or KFP_HOST) runs, caches, fails and terminates as it should
	@$(PY) -m pipeline.clusters.smoke --config "$(CONFIG)" --runs "$(RUNS)" --set $(SET) $(if $(DATA),"data_source=$(DATA)") $(KFP_FLAGS)

kfp-upload: setup ## add a version of the pipeline (KFP_NAME=) to the cluster's KFP, with CONFIG and SET as defaults
	@$(MANAGE) upload --name "$(KFP_NAME)" --config "$(CONFIG)" --runs "$(RUNS)" --set $(SET) $(if $(DATA),"data_source=$(DATA)") $(KFP_FLAGS)

kfp-schedule: setup ## run it again and again: WHEN="0 0 3 * * *" or "every 3600"; WHEN=pause, resume, delete; without: list
	@$(MANAGE) schedule --name "$(KFP_NAME)" --when "$(WHEN)" --config "$(CONFIG)" --runs "$(RUNS)" --set $(SET) $(if $(DATA),"data_source=$(DATA)") $(KFP_FLAGS)

kfp-runs: setup ## list the cluster's latest runs
	@$(MANAGE) runs $(KFP_FLAGS)

kfp-follow: setup ## follow a run (RUN=id) to its end
	@$(MANAGE) follow --run "$(RUN)" $(KFP_FLAGS)

kfp-terminate: setup ## end a run (RUN=id)
	@$(MANAGE) terminate --run "$(RUN)" $(KFP_FLAGS)

vertex-setup: ## show what a Google Cloud project lacks for the pipeline, and how to mend it (APPLY=1: mend it; needs gcloud)
	@bash pipeline/vertex/setup_project.sh $(if $(PROJECT),--project "$(PROJECT)") $(if $(REGION),--region "$(REGION)") \
		$(if $(BUCKET),--bucket "$(BUCKET)") $(if $(KMS_KEY),--kms-key "$(KMS_KEY)") $(if $(APPLY),--apply) $(SETUP)

vertex-check: setup ## look whether a project has what a run needs: APIs, permissions, bucket, images, quota
	@$(MANAGE_VERTEX) check --image "$(IMAGE)" $(VERTEX_FLAGS)

vertex-list: setup ## list the latest runs
	@$(MANAGE_VERTEX) list $(VERTEX_FLAGS)

vertex-follow: setup ## follow a run (RUN=id) to its end
	@$(MANAGE_VERTEX) follow --run "$(RUN)" --runs "$(RUNS)" $(VERTEX_FLAGS)

vertex-cancel: setup ## end a run (RUN=id) and its training
	@$(MANAGE_VERTEX) cancel --run "$(RUN)" $(VERTEX_FLAGS)

vertex-schedule: setup ## run again and again: WHEN="0 3 * * *"; WHEN=pause, resume, delete; without: list
	@$(MANAGE_VERTEX) schedule --name "$(VERTEX_NAME)" --when "$(WHEN)" --config "$(CONFIG)" --data "$(DATA)" \
		--set $(SET) --image "$(IMAGE)" $(VERTEX_FLAGS) $(RUN_FLAGS)

vertex-tune: setup ## search parameters on the data of a finished run: RUN=id TUNE="learning_rate=1e-4..1e-2:log"
	@$(MANAGE_VERTEX) tune --run "$(RUN)" --tune $(TUNE) --trials "$(TRIALS)" --parallel "$(PARALLEL)" \
		--name "$(VERTEX_NAME)" --set $(SET) --image "$(IMAGE)" $(VERTEX_FLAGS) $(RUN_FLAGS)

vertex-endpoint: setup ## what an endpoint (ENDPOINT=name) answers with
	@$(MANAGE_VERTEX) endpoint --endpoint "$(ENDPOINT)" $(VERTEX_FLAGS)

vertex-rollback: setup ## its traffic back to the version before
	@$(MANAGE_VERTEX) rollback --endpoint "$(ENDPOINT)" $(VERTEX_FLAGS)

vertex-undeploy: setup ## take everything off it and delete it
	@$(MANAGE_VERTEX) undeploy --endpoint "$(ENDPOINT)" $(VERTEX_FLAGS)

extract: setup ## make records of own videos (VIDEOS=list.csv, folder, video or gs://) in EXAMPLES=folder
	@$(PY) -m components.extract_features --videos "$(VIDEOS)" --output "$(EXAMPLES)" --weights "$(WEIGHTS)" $(EXTRACT)

videos-run: setup ## run the DAG for own videos: extract, statistics, and with MODEL=folder predict
	@$(PY) -m pipeline.run_videos --videos "$(VIDEOS)" --model "$(MODEL)" --weights "$(WEIGHTS)" --runs "$(RUNS)" --set $(SET)

predict: setup ## score shards with an exported model (by default the newest run's, on its validate shards), or VIDEO=clip.mp4
	@$(PY) -m components.predict --runs "$(RUNS)" --model "$(MODEL)" --data "$(DATA)" \
		--output "$(PREDICTIONS)" --video "$(VIDEO)" $(if $(VIDEO),--weights "$(WEIGHTS)") $(PREDICT)

test: setup-dev lint ## set up, check the code and run the tests
	@$(PY) -m pytest -m "not slow and not docker" $(WORKERS) $(PYTEST)

test-slow: setup-dev ## run the longer tests: trainings, killed runs, runs at once, workers
	@$(PY) -m pytest -m slow $(WORKERS) $(PYTEST)

test-docker: setup-dev ## run the tests of the images and of the DAG in containers (after make images)
	@$(PY) -m pytest -m docker $(PYTEST)

benchmark: setup ## measure speed, memory and learning (forty minutes, on a quiet machine)
	@$(PY) -m benchmarks.train_step
	@$(PY) -m benchmarks.layer_forms
	@$(PY) -m benchmarks.memory
	@$(PY) -m benchmarks.training_loop
	@$(PY) -m benchmarks.input_pipeline
	@$(PY) -m benchmarks.resume
	@$(PY) -m benchmarks.statistics_pass
	@$(PY) -m benchmarks.download
	@$(PY) -m benchmarks.evaluation
	@$(PY) -m benchmarks.serving
	@$(PY) -m benchmarks.feature_extraction
	@$(PY) -m benchmarks.time_to_gap sample

lint: setup-dev ## ruff, mypy and the import contracts
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@.venv/bin/hadolint docker/*.Dockerfile
	@.venv/bin/shellcheck docker/*.sh pipeline/vertex/*.sh requirements/*.sh .ci/*.sh .ci/run
	@$(PY) -m mypy
	@.venv/bin/lint-imports

format: setup-dev ## format the code, mend what can be mended
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

lock: setup-dev ## lock the requirements anew after an .in file changed (UPGRADE=1: newest versions)
	$(LOCK) requirements/bootstrap.in -o requirements/bootstrap.txt
	$(LOCK) requirements/cpu.in -o requirements/cpu.txt
	$(LOCK) requirements/serving.in -c requirements/cpu.txt -o requirements/serving.txt
	$(LOCK) requirements/onnx.in -c requirements/cpu.txt -o requirements/onnx.txt
	$(LOCK) requirements/gpu.in -c requirements/cpu.txt -o requirements/gpu.txt
	$(LOCK) requirements/dev.in -c requirements/cpu.txt -o requirements/dev.txt

clean: ## remove runs/ (with its data, checkpoints and caches) and build/
	rm -rf runs build

clean-all: clean ## remove the virtual environment too
	rm -rf .venv .setup.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
