#!/usr/bin/env bash
# The whole system under load, one kind after the other: rows for benches/RESULTS.md. BENCH_SECONDS (default 10) for
# each; BENCH_DIR is where the server's data goes, so which disk is measured (default: beside what cargo builds, as the
# directory for temporary files may be in memory, where an fsync costs nothing).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

cargo build --release --locked --package rove-server --package rove-benches --bins
load="$(target_dir)/release/rove-load"
seconds=${BENCH_SECONDS:-10}
dir=${BENCH_DIR:-$(target_dir)/bench-load}
mkdir -p "$dir"
common=(--dir "$dir")

step "one post at a time" "$load" "${common[@]}" posts --sessions 1 --window 1 --seconds "$seconds"
step "posts per second" "$load" "${common[@]}" posts --seconds "$seconds"
step "posts per second, windows full" "$load" "${common[@]}" posts --sessions 64 --window 64 --seconds "$seconds"
step "latency" "$load" "${common[@]}" latency --seconds "$seconds"
step "latency at 1,000/s" "$load" "${common[@]}" latency --rate 1000 --seconds "$seconds"
step "idle sessions" "$load" "${common[@]}" idle
step "at rest" "$load" "${common[@]}" rest --seconds "$seconds"

cluster=("${common[@]}" --nodes 3)
step "three nodes: one post at a time" "$load" "${cluster[@]}" posts --sessions 1 --window 1 --seconds "$seconds"
step "three nodes: posts per second" "$load" "${cluster[@]}" posts --seconds "$seconds"
step "three nodes: posts per second, windows full" "$load" "${cluster[@]}" posts --sessions 64 --window 64 --seconds "$seconds"
step "three nodes: latency" "$load" "${cluster[@]}" latency --seconds "$seconds"
step "three nodes: latency at 1,000/s" "$load" "${cluster[@]}" latency --rate 1000 --seconds "$seconds"
step "three nodes: at rest" "$load" "${cluster[@]}" rest --seconds "$seconds"
