#!/usr/bin/env bash
# Runs the simulated cluster: scripts/sim.sh [SEED=n] [RUNS=n] [STEPS=n] [FAULTS=all|none|name,…|-name,…] [BUG=name] [HISTORY=file].
# Needs neither libclang nor RocksDB. With a seed it is one run, without one a batch; the last lines say how it went, and how to
# repeat a run that failed.
set -euo pipefail
cd "$(dirname "$0")/.."

exec cargo run --quiet --locked --package rove-sim -- "$@"
