# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

VENV := .venv
PYTHON := $(VENV)/bin/python

.PHONY: help demo test lint unit integration molecule bench-switch bench-proxmox bench-services chaos race build packages test-packages clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: packages $(VENV)/.lab ## The whole story on this machine: lab, operator database, site.yml, rollback
	@$(PYTHON) tests/lab/demo.py

bench-switch: packages $(VENV)/.lab ## What the guarded switch costs beside nixos-rebuild's plain sequence: a table (HOSTS="1 10 30")
	@$(PYTHON) tests/bench/switch.py

bench-proxmox: packages $(VENV)/.lab .cache/bench/.installed ## Requests and seconds beside community.proxmox on the same simulated cluster: a table (SIZES="1 10 50")
	@PYTHONPATH=tests $(PYTHON) tests/bench/proxmox.py

bench-services: packages $(VENV)/.lab .cache/bench/.installed ## PostgreSQL, DNS, Garage and Valkey beside the community collections on the same servers: a table (APPS=100 RECORDS=1000 PEER=10 ONLY="dns garage")
	@PYTHONPATH=tests $(PYTHON) tests/bench/services.py

TRIALS := PYTHONPATH=collections:tests:tests/integration/guard $(PYTHON) -m

chaos: packages $(VENV)/.lab ## Faults at random moments of deployments (N=200, SEED=…, TRIAL=… repeats one)
	@$(TRIALS) chaos.trials --trials $(or $(N),200) $(if $(SEED),--seed $(SEED)) $(if $(TRIAL),--trial $(TRIAL))

race: packages $(VENV)/.lab ## The confirmation against the deadline (N=100, SEED=…)
	@$(TRIALS) chaos.race --trials $(or $(N),100) $(if $(SEED),--seed $(SEED))

test: test-packages $(VENV)/.tests ## Everything below
	@$(PYTHON) tests/tools/stages.py

lint unit integration molecule: test-packages $(VENV)/.tests
	@$(PYTHON) tests/tools/stages.py $@

lint: ## Linters, type checks, ansible-test sanity
unit: ## Unit tests
integration: ## The demo's story as assertions, on the lab
molecule: ## molecule test: create, converge, idempotence, verify, destroy

build: $(VENV)/.lab ## The collection artifact, into build/
	@$(VENV)/bin/ansible-galaxy collection build --force --output-path build

packages:
	@sh tests/tools/packages.sh

test-packages:
	@sh tests/tools/packages.sh test

$(VENV)/.lab: requirements.txt tests/lab/requirements.txt
	@sh tests/tools/venv.sh $(VENV) tests/lab/requirements.txt && touch $@

$(VENV)/.tests: requirements.txt tests/lab/requirements.txt tests/requirements.txt
	@sh tests/tools/venv.sh $(VENV) tests/requirements.txt && touch $@ $(VENV)/.lab

.cache/bench/.installed: tests/bench/requirements.txt
	@sh tests/tools/venv.sh .cache/bench tests/bench/requirements.txt && touch $@

clean: ## Stop the lab, remove what the targets made in this checkout
	@./lab down
	@rm -rf $(VENV) .cache build .ansible .hypothesis tests/output
