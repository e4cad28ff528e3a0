#!/usr/bin/env bash
# Real faults on three real nodes: scripts/faults.sh. FAULTS_SECONDS (default 600) is shared among the faults, FAULTS (F1,F22; default
# all) chooses among them, SEED (default 1) decides what is chance. Prints what it does and a table at the end; exit code 1 if anything
# was lost, doubled, out of order or refused for good, if nothing went on after a fault or too late after a leader's death, or if a fault
# never fired. Some need root or tools (CONTRIBUTING.md says which): they are skipped with a line that says so.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

# The server, and that of a later day.
cargo build --locked --workspace --bins --examples
step "faults" env FAULTS_SECONDS="${FAULTS_SECONDS:-600}" FAULTS="${FAULTS:-all}" SEED="${SEED:-1}" \
    cargo test --locked --workspace --test faults --quiet -- --ignored --exact every_fault_in_turn --nocapture || exit 1
