# Everything starts here; each target does all of its own set-up from a fresh clone.
#   make demo   two regions come up, are broken in four ways, and the verdict sheet is printed
#   make test   every test; make check: lint, formatting, types, import contracts
#   make bench  writes benchmarks/RESULTS.md
#   make tools  brings Prometheus, Alertmanager and their checkers into .tools (Debian packages)
#   make ci-load  smoke load under the gate, then drills; reports in build/ci-load
#   make alerts   a drill on a monitored platform: which alerts came, and after how long
#   make docs   writes docs/reference from the commands themselves
#   make screenshots  the README's pictures of the dashboard, from a platform of its own
#   make audit  known vulnerabilities of the pinned dependencies (needs the internet)
#   make kills  kills the control plane in 20 drills, then every process while customers shop
#   make autoscale  a spike without and with autoscaling: instances come, it is over, they go (root)
#   make soak   ten minutes of reshards, failovers, kills and backups at once (SEED=n repeats one)
# PYTHON=/path/to/python chooses the interpreter (3.11 or newer).

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
BENCH_INSTALLED := .venv-bench/.installed
PACKAGES := cli control_plane infra loadtests runbooks runtime
PIP_OPTIONS := --quiet --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help install demo tools test check ci-load alerts docs screenshots audit bench kills autoscale \
  soak clean

help:
	@sed -n '2,14s/^# *//p' Makefile

install: $(INSTALLED)

# Makes the virtual environment $(1). Debian ships python3 without ensurepip: then the system's pip
# fills the environment, and when there is none either, the message says which package to install.
define make_venv
	found=; \
	for candidate in $(PYTHON) python3.14 python3.13 python3.12 python3.11; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    found=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "regionctl needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "Install one and say where it is: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
	  exit 1; \
	fi; \
	if [ ! -x $(1)/bin/python ] || ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
	  echo "making $(1) with $$("$$found" -V)" >&2; \
	  if "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	    "$$found" -m venv $(1) || exit 1; \
	  elif "$$found" -m pip --version >/dev/null 2>&1; then \
	    "$$found" -m venv --without-pip $(1) && \
	    "$$found" -m pip --python $(1)/bin/python install $(PIP_OPTIONS) pip || exit 1; \
	  else \
	    version=$$("$$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    echo "$$found can make no virtual environment: its module ensurepip is missing." >&2; \
	    echo "On Debian and Ubuntu: apt-get install python$$version-venv (or python3-venv)." >&2; \
	    exit 1; \
	  fi; \
	fi
endef

$(INSTALLED): pyproject.toml constraints.txt
	@$(call make_venv,.venv)
	@echo "installing regionctl and its dependencies into .venv (servers included, once)" >&2
	@$(BIN)/python -m pip install $(PIP_OPTIONS) -c constraints.txt -e '.[test,check]'
	@touch $@

# The peers of the benchmark never enter the product's environment.
$(BENCH_INSTALLED): benchmarks/requirements.txt
	@$(call make_venv,.venv-bench)
	@echo "installing Patroni and etcd into .venv-bench" >&2
	@.venv-bench/bin/python -m pip install $(PIP_OPTIONS) -r benchmarks/requirements.txt
	@touch $@

# The lowest port offset at which the platform's ports (from 18000 on) are all free.
define FREE_OFFSET
import socket, sys
def free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
for offset in range(0, 12000, 400):
    if all(free(18000 + offset + port) for port in range(400)):
        sys.exit(print(offset))
sys.exit("no 400 neighbouring ports are free between 18000 and 30000 on 127.0.0.1")
endef
export FREE_OFFSET

DEMO_DRILLS := service-outage database-failure zone-failure region-failure

# A platform of its own, removed again whatever happens; its reports stay in build/demo.
demo: $(INSTALLED)
	@if [ "$$(id -u)" = 0 ]; then base=/var/lib/regionctl; \
	else base=$${XDG_STATE_HOME:-$$HOME/.local/state}/regionctl; fi; \
	state=$$base/demo-$$$$; \
	offset=$$($(BIN)/python -c "$$FREE_OFFSET") || exit 1; \
	run() { printf '\n$$ regionctl %s\n' "$$*"; $(BIN)/regionctl "$$@" --state-dir "$$state"; }; \
	finish() { \
	  status=$$?; trap '' INT TERM; trap - EXIT; \
	  rm -rf build/demo; mkdir -p build; \
	  if [ -d "$$state/drills" ]; then cp -r "$$state/drills" build/demo; fi; \
	  if [ -d "$$state" ]; then \
	    run down --delete-data --confirm two-regions || [ $$status -ne 0 ] || status=4; \
	  fi; \
	  if [ -d build/demo ]; then printf '\nreports: build/demo\n'; fi; \
	  exit $$status; \
	}; \
	trap finish EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; \
	run up --port-offset "$$offset" || exit; \
	for drill in $(DEMO_DRILLS); do run drill run "$$drill" || exit; done; \
	run failback run --yes || exit; \
	run drill run data-corruption || exit; \
	run dr

test: $(INSTALLED)
	@echo "fast tests"
	@$(BIN)/pytest -m 'not process' -n 3 --dist worksteal
	@echo "tests on real servers"
	@$(BIN)/pytest -m 'process and not alone' -n 4 --dist loadfile
	@echo "tests of the whole platform, one at a time"
	@$(BIN)/pytest -m alone

check: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy benchmarks
	@$(BIN)/lint-imports
	@$(BIN)/bandit -q -c pyproject.toml --severity-level medium -r $(PACKAGES)
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/zizmor --offline --quiet .github/workflows
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/python -m pip --disable-pip-version-check check

# PROFILE=baseline GATE=slo.yaml DRILLS="zone-failure reshard" choose others.
ci-load: $(INSTALLED)
	@.ci/load

# Tests of the monitoring are skipped without them. Downloads once; starts and installs nothing.
tools:
	@.ci/tools

# DRILL=zone-failure or region-failure breaks something else, OFFSET=n moves the platform's ports.
alerts: $(INSTALLED) tools
	@$(BIN)/python benchmarks/alert_drill.py --drill $(or $(DRILL),database-failure) \
	  $(if $(OFFSET),--offset $(OFFSET))

docs: $(INSTALLED)
	@$(BIN)/python -m cli.reference

# A platform of its own, removed again whatever happens.
screenshots: $(INSTALLED)
	@if [ "$$(id -u)" = 0 ]; then base=/var/lib/regionctl; \
	else base=$${XDG_STATE_HOME:-$$HOME/.local/state}/regionctl; fi; \
	state=$$base/screenshots-$$$$; \
	offset=$$($(BIN)/python -c "$$FREE_OFFSET") || exit 1; \
	finish() { \
	  status=$$?; trap '' INT TERM; trap - EXIT; \
	  if [ -d "$$state" ]; then \
	    $(BIN)/regionctl down --delete-data --confirm two-regions --state-dir "$$state" \
	      || [ $$status -ne 0 ] || status=4; \
	  fi; \
	  exit $$status; \
	}; \
	trap finish EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; \
	$(BIN)/regionctl up --port-offset "$$offset" --state-dir "$$state" || exit; \
	$(BIN)/python -m docs.screenshots --state-dir "$$state"

# Asks the public advisory database about every pinned version, so it needs the internet.
audit: $(INSTALLED)
	@$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

bench: $(INSTALLED) $(BENCH_INSTALLED)
	@$(BIN)/python benchmarks/request_path.py --rounds 3
	@$(BIN)/python benchmarks/failover.py --repeat $(or $(REPEAT),5)
	@$(BIN)/python benchmarks/copy_rows.py
	@$(BIN)/python benchmarks/restore_copy.py
	@$(BIN)/python benchmarks/backup_overhead.py
	@$(BIN)/python benchmarks/shard_loss.py
	@PYTHONPATH=. $(BIN)/python benchmarks/dash.py
	@$(BIN)/python benchmarks/load_peers.py

kills: $(INSTALLED)
	@$(BIN)/python benchmarks/control_plane_kills.py --drills $(or $(REPEAT),20)
	@$(BIN)/python benchmarks/kill_tour.py

# OPTIONS="--rate-scale 0.8" changes the load of both runs; benchmarks/autoscale.py -h has all.
autoscale: $(INSTALLED)
	@$(BIN)/python benchmarks/autoscale.py --control --seconds 200 $(OPTIONS)
	@$(BIN)/python benchmarks/autoscale.py $(OPTIONS)

soak: $(INSTALLED)
	@$(BIN)/python benchmarks/soak.py --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf .venv .venv-bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	  .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
