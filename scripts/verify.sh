#!/usr/bin/env bash
# Everything that can be said about the code without running it. Changes nothing in the tree; goes on after a failure,
# so that one run shows all there is to mend.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

failed=()
check() { step "$@" || failed+=("$1"); }

check "format" cargo fmt --all --check -- -l
check "lints" cargo clippy --workspace --all-targets --locked --keep-going --quiet -- -D warnings
check "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --keep-going --quiet

# The comparison with other systems, a workspace of its own.
peers=(--manifest-path benches/peers/Cargo.toml)
check "format of benches/peers" cargo fmt "${peers[@]}" --check -- -l
check "lints of benches/peers" cargo clippy "${peers[@]}" --target-dir "$(target_dir)" --all-targets --locked --quiet -- -D warnings

# The protocol must build where there is no operating system (a browser); checked where that target is installed.
if [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ]; then
    check "protocol for wasm32" cargo check --package rove-protocol --target wasm32-unknown-unknown --locked --quiet
else
    skipped "protocol for wasm32: rustup target add wasm32-unknown-unknown"
fi

if cargo deny --version >/dev/null 2>&1; then
    check "dependencies" cargo deny --log-level error check bans licenses sources
    # The database of advisories is fetched, or was once; without a network that is nobody's fault here. (cargo-deny's
    # fetch succeeds whatever happens: what counts is whether there is a database.)
    cargo deny fetch db >/dev/null 2>&1 || true
    if compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/.git" >/dev/null; then
        check "advisories" cargo deny --log-level error --offline check advisories
    else
        skipped "advisories: the database cannot be fetched from here"
    fi
else
    skipped "dependencies: cargo install --locked cargo-deny"
fi

if command -v shellcheck >/dev/null; then
    check "scripts" shellcheck --external-sources scripts/*.sh benches/peers/run.sh .ci/run
else
    skipped "scripts: install shellcheck"
fi

if command -v promtool >/dev/null; then
    check "alarms" promtool check rules docs/alerts.yml
    check "alarms that fire" promtool test rules docs/alerts-test.yml
else
    skipped "alarms: install prometheus, for its promtool"
fi

if [ ${#failed[@]} -eq 0 ]; then
    printf '\n%sPASSED%s  verified in %d s\n' "$green" "$plain" "$SECONDS" >&2
else
    printf '\n%sFAILED%s  %s\n' "$red" "$plain" "$(IFS=,; printf '%s' "${failed[*]}")" >&2
    exit 1
fi
