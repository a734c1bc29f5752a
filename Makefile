# Everything that is done by name. `make test` is what .ci/run runs.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: help setup build demo demo-stop test soak bench fmt lint schemas

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s $$'\t'

setup: ## programs of others that demo and tests need, by apt, pip, go and maven
	@setup/install.sh

# One selection of packages, one profile and one compiler for all tests, so that nothing is built twice. The compiler is clippy's:
# `cargo clippy` would go through all that our crates depend on once more.
build test soak schemas: export RUSTC_WORKSPACE_WRAPPER = clippy-driver

build: ## both programs and all tests, with what clippy says of them
	cargo build --workspace --all-targets

demo: ## a session from login to replay; Ctrl-C ends it (DETACH=1 leaves it running, SINKS=loki,opensearch,kafka delivers there, AGENT=1 watches the targets)
	@demo/run.sh

demo-stop: ## ends a detached demo
	@demo/stop.sh

# How many tests run at once depends on the program that they are in.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
test: export CARGO_TARGET_$(HOST)_RUNNER = $(CURDIR)/tests/threads.sh

# The first time, servers of others take as long to build as our own programs: side by side. What was said of something that is
# built is said again, so that no warning is passed over.
test: ## everything that CI checks
	setup/install.sh --packages
	cargo fmt --all --check
	setup/beside.sh $(MAKE) --no-print-directory build
	@! cargo build --workspace --all-targets 2>&1 | grep '^warning'
	cargo test --workspace --no-fail-fast

# Seeds are printed; CUSTODY_SEED takes one. The fuzzers need no sanitizer (the code is safe Rust), so stable will do.
soak: export CUSTODY_FUZZ_SECONDS ?= 600
soak: setup build ## kill -9, 1,000 rounds and more, a minute's flood and a minute's cut, 100,000 events into besieged stores and past brokers that die, ten minutes of libFuzzer for each codec
	CUSTODY_KILLS=30 cargo test --workspace --test e2e -- --nocapture kill::
	CUSTODY_AGENT_KILLS=50 cargo test --workspace --test e2e -- --nocapture an_agent_that_is_killed
	CUSTODY_FLOOD_SECONDS=60 CUSTODY_CUT_SECONDS=60 cargo test --workspace --test e2e -- --nocapture --test-threads 1 node_endurance::
	setup/vm/install.sh --later
	CUSTODY_VM_ALL=1 cargo test --workspace --test e2e -- --nocapture --test-threads 1 node_vm::
	CUSTODY_ROUNDS=1000 cargo test --workspace --test crash -- --nocapture kill::
	CUSTODY_SINK_EVENTS=100000 cargo test --workspace --test sinks -- --nocapture --test-threads 1 under_siege
	CUSTODY_SINK_EVENTS=100000 CUSTODY_KILLS=100 cargo test --workspace --test sinks -- --nocapture --test-threads 1 --skip under_siege kafka:: several::
	command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
	CUSTODY_CORPUS=$(CURDIR)/fuzz/corpus cargo test --workspace --test fuzz
	RUSTC_WORKSPACE_WRAPPER= cargo fuzz build -s none
	for target in $$(cargo fuzz list); do \
	  RUSTC_WORKSPACE_WRAPPER= cargo fuzz run -s none "$$target" -- -max_total_time="$$CUSTODY_FUZZ_SECONDS" -print_final_stats=1; \
	done

bench: setup ## what it costs, beside what others cost: a table, and bench.json (CUSTODY_BENCH_LARGE=1: ten million entries)
	setup/collector/install.sh
	cargo build --release --workspace --bins
	cargo bench --workspace --bench costs

fmt: ## formats
	cargo fmt --all

lint: ## what the compiler and clippy find
	cargo clippy --workspace --all-targets -- -D warnings

schemas: ## writes what is generated from the event types
	UPDATE=1 cargo test --workspace --test tidy generated::schemas
