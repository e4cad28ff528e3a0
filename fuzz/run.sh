#!/bin/sh
# Fuzzes one target without cargo-fuzz: ./fuzz/run.sh TARGET [SECONDS]. Needs a nightly compiler.
# The flags are those that cargo-fuzz gives, without a sanitizer: the code under test is safe Rust.
set -eu
target=${1:?which target? one of: frames messages bodies server_session client_session}
seconds=${2:-60}
cd "$(dirname "$0")"
python3 seeds.py
mkdir -p artifacts
build=${CARGO_TARGET_DIR:-target}
host=$(rustc -vV | sed -n 's/^host: //p')
# `--target` keeps the flags away from build scripts.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 -Cdebug-assertions \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo +nightly build --release --target "$host" --bin "$target"
exec "$build/$host/release/$target" "corpus/$target" -max_total_time="$seconds" -max_len=2048 \
    -artifact_prefix="artifacts/$target-"
