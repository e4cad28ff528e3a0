#!/usr/bin/env bash
# A guard against becoming slower that works on busy machines: what Rove does as a ratio to a bare QUIC echo in the same
# run, compared with benches/baseline.json; exit code 1 if something is worse by more than is tolerated there.
# BENCH_ROUNDS (default 3); BENCH_KEEP=1 writes the file instead; BENCH_DIR as for bench-load.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

cargo build --release --locked --workspace --bins
dir=${BENCH_DIR:-$(target_dir)/bench-load}
mkdir -p "$dir"
keep=()
if [ -n "${BENCH_KEEP:-}" ]; then keep=(--keep); fi
step "compared with the floor" "$(target_dir)/release/rove-bench" --dir "$dir" \
    quick --baseline benches/baseline.json --rounds "${BENCH_ROUNDS:-3}" ${keep[@]+"${keep[@]}"}
