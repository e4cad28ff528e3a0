#!/usr/bin/env bash
# How many instructions a message costs in the codec, at apply and in the fan-out, counted by valgrind and compared with
# benches/instructions.json; exit code 1 if something takes 5 % more. BENCH_KEEP=1 writes the file instead.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

if ! command -v valgrind >/dev/null; then
    printf 'skipped: instructions are counted by valgrind, which is not installed\n' >&2
    exit 0
fi
# Only what is counted is built: no server, no RocksDB.
cargo build --release --locked --package rove-benches --no-default-features --features work --bin rove-instructions
keep=()
if [ -n "${BENCH_KEEP:-}" ]; then keep=(--keep); fi
step "instructions per message" "$(target_dir)/release/rove-instructions" \
    --kept benches/instructions.json ${keep[@]+"${keep[@]}"}
