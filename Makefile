# Every target installs what it needs first; `make setup` is quick when nothing is missing.
SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(HOME)/.cache/fabric/tools/bin:$(PATH)
# One build, shared by clones: keyed by toolchain and lock file, so that it never mixes what differs.
CACHE_KEY := $(shell (rustc -V 2>/dev/null; cat Cargo.lock) | sha256sum | cut -c1-16)
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(HOME)/.cache/fabric/target-$(CACHE_KEY)
endif
export CARGO_TARGET_DIR ?= $(CURDIR)/target
XTASK := cargo run -q --locked -p xtask --
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
ARGS ?=

.PHONY: help setup build demo test lint bench

help: ## This list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: ## Install what is missing: packages, the eBPF toolchain, tools
	@$(XTASK) setup

build: setup ## Build the executable: target/release/fabric
	cargo build --release --locked -p fabric-cli

demo: build ## Two clusters and a VM on this machine; ARGS=--once runs the tour and checks it
	$(SUDO) $(CARGO_TARGET_DIR)/release/fabric demo $(ARGS)

test: build ## All tests, those that need root and namespaces included
	$(SUDO) env PATH="$$PATH" CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)" $(XTASK) test

lint: setup ## rustfmt, clippy, tidy, cargo deny
	$(XTASK) lint

bench: build ## NAME=x prints a table and writes target/bench/x.json
	$(SUDO) env PATH="$$PATH" CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)" $(XTASK) bench $(NAME)
