#!/usr/bin/env bash
# Fuzzes every target of fuzz/ for FUZZ_SECONDS (default 60) each, or only those named as arguments.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    printf 'fuzz: this needs a nightly toolchain and cargo-fuzz:\n' >&2
    printf '  rustup toolchain install nightly --profile minimal && cargo install --locked cargo-fuzz\n' >&2
    exit 1
fi

if [ $# -eq 0 ]; then
    # shellcheck disable=SC2046 # one word a target
    set -- $(cargo +nightly fuzz list --fuzz-dir fuzz)
fi
# The bytes of the specification reach deeper at once.
if command -v python3 >/dev/null; then
    python3 fuzz/seeds.py
fi
for target in "$@"; do
    step "fuzz $target" cargo +nightly fuzz run --fuzz-dir fuzz "$target" -- \
        "-max_total_time=${FUZZ_SECONDS:-60}" -max_len=2048 -verbosity=0 -print_final_stats=1
done
