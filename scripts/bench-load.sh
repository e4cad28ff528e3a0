#!/usr/bin/env bash
# The whole system under load, one kind after the other: rows for benches/RESULTS.md. BENCH_SECONDS (default 10) for
# each; BENCH_DIR is where the server's data goes, so which disk is measured (default: beside what cargo builds, as the
# directory for temporary files may be in memory, where an fsync costs nothing); BENCH_OUT gets JSON and SVG of each.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

cargo build --release --locked --workspace --bins
bench="$(target_dir)/release/rove-bench"
seconds=${BENCH_SECONDS:-10}
dir=${BENCH_DIR:-$(target_dir)/bench-load}
out=${BENCH_OUT:-$(target_dir)/bench-load/out}
mkdir -p "$dir" "$out"

# `measure NAME NODES MODE…`: one kind of load, its report in $out/NAME.json and .svg.
measure() {
    local name=$1 nodes=$2
    shift 2
    step "$name" "$bench" --dir "$dir" --nodes "$nodes" --json "$out/$name.json" --svg "$out/$name.svg" "$@"
}

measure floor 1 floor --seconds "$seconds"
for nodes in 1 3; do
    measure "one-by-one-$nodes" "$nodes" posts --sessions 1 --window 1 --seconds "$seconds"
    measure "posts-$nodes" "$nodes" posts --seconds "$seconds"
    measure "posts-full-$nodes" "$nodes" posts --sessions 64 --window 64 --seconds "$seconds"
    measure "posts-due-$nodes" "$nodes" posts --rate 20000 --seconds "$seconds"
    measure "latency-100-$nodes" "$nodes" latency --rate 100 --seconds "$seconds"
    measure "latency-1000-$nodes" "$nodes" latency --rate 1000 --seconds "$seconds"
    measure "fan-out-$nodes" "$nodes" fan-out --seconds "$seconds"
    measure "fan-out-due-$nodes" "$nodes" fan-out --rate 100 --seconds "$seconds"
    measure "path-$nodes" "$nodes" path --seconds "$seconds"
    measure "storm-$nodes" "$nodes" storm --seconds "$seconds"
    measure "catch-up-$nodes" "$nodes" catch-up
    measure "recovery-$nodes" "$nodes" recovery --seconds "$seconds"
    measure "rest-$nodes" "$nodes" rest --seconds "$seconds"
done
measure idle 1 idle --seconds "$seconds"
printf 'JSON and pictures are in %s\n' "$out"
