# Every task of the project by one name. Each does what it needs first (libclang, RocksDB: scripts/bootstrap.sh).
# CARGO_TARGET_DIR is respected; so is everything else cargo reads from the environment.

.DEFAULT_GOAL := help
.PHONY: help bootstrap tools build run cluster test verify fix bench bench-quick bench-instructions bench-micro bench-load bench-peers fuzz sim faults
MAKEFLAGS += --no-print-directory

help: ## This list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

bootstrap: ## Get what the build needs: libclang, and RocksDB (20-30 minutes, once for this machine)
	@scripts/bootstrap.sh

tools: ## Get what parts of verify and test are skipped without: shellcheck, promtool, aioquic, cargo-deny
	@scripts/tools.sh

build: bootstrap ## Build rove-server and rove, optimised
	@scripts/run.sh --build-only

run: bootstrap ## Build, start a server, and chat: the demo (scripted where there is no terminal)
	@scripts/run.sh

cluster: bootstrap ## Build, start three nodes as one, and kill one while two people talk (on a terminal it goes on)
	@scripts/cluster.sh

test: bootstrap ## Run every test
	@scripts/test.sh

verify: bootstrap ## Check format, lints, documentation, dependencies, scripts; changes nothing
	@scripts/verify.sh

fix: bootstrap ## Format, and mend what clippy can mend by itself
	@cargo fmt --all
	@cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

bench: bench-micro bench-load ## Every measurement that benches/RESULTS.md has figures of

bench-quick: bootstrap ## A few minutes: has anything become much slower? Ratios to a bare QUIC echo, compared with benches/baseline.json
	@scripts/bench-quick.sh

bench-instructions: ## Does a message take more instructions? Counted by valgrind, on busy machines too, compared with benches/instructions.json
	@scripts/bench-instructions.sh

bench-micro: bootstrap ## Micro benchmarks (criterion)
	@cargo bench --package rove-benches

bench-load: bootstrap ## The whole system under load (rove-bench): a release server of its own on loopback, BENCH_SECONDS=10 each
	@scripts/bench-load.sh

bench-peers: bootstrap ## Rove beside JetStream, etcd, mosquitto and others, in one run: ARGS="--only nats,etcd --rounds 3 --seconds 5"
	@benches/peers/run.sh $(ARGS)

fuzz: ## Fuzz every target for FUZZ_SECONDS=60 each (needs a nightly toolchain and cargo-fuzz)
	@scripts/fuzz.sh

sim: ## Simulate a cluster under faults: SEED=1 (one run) RUNS=300 STEPS=12000 FAULTS=all BUG= HISTORY=
	@scripts/sim.sh SEED="$(SEED)" RUNS="$(RUNS)" STEPS="$(STEPS)" FAULTS="$(FAULTS)" BUG="$(BUG)" HISTORY="$(HISTORY)"

faults: bootstrap ## Real faults on three real nodes: FAULTS_SECONDS=600 FAULTS=F1,F22 SEED=1
	@FAULTS_SECONDS="$(FAULTS_SECONDS)" FAULTS="$(FAULTS)" SEED="$(SEED)" scripts/faults.sh
