#!/usr/bin/env bash
# Runs every test: the pure crates', the end-to-end ones with the real binaries over loopback, and those in the
# documentation. Arguments are handed to the test runner, such as a name to filter by. The last line says how it went.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

started=$SECONDS
failed=()
# Tests that need what is not here say so in this file; a runner would show them as passed.
ROVE_SKIPPED="$(mktemp "${TMPDIR:-/tmp}/rove-skipped.XXXXXX")"
export ROVE_SKIPPED
ROVE_PYTHON="${ROVE_PYTHON:-$(python)}"
export ROVE_PYTHON
trap 'rm -f "$ROVE_SKIPPED"' EXIT

# Before the tests, so that those of tests/ find the real binaries beside themselves, and so that the time of the build
# is not counted as theirs.
if step "build" cargo build --workspace --bins --tests --examples --locked; then
    tests_started=$SECONDS
    if cargo nextest --version >/dev/null 2>&1; then
        # No retries: a test that fails now and then is a bug. Only what is slow or fails is named.
        step "tests" cargo nextest run --workspace --locked --no-fail-fast \
            --status-level slow --final-status-level fail "$@" || failed+=("tests")
    else
        step "tests" cargo test --workspace --lib --bins --tests --locked --no-fail-fast --quiet "$@" || failed+=("tests")
    fi
    if [ $# -eq 0 ]; then
        step "documentation tests" cargo test --workspace --doc --locked --quiet || failed+=("documentation tests")
    fi
    tests_took=$((SECONDS - tests_started))
else
    failed+=("build")
    tests_took=0
fi

skips=$(wc -l <"$ROVE_SKIPPED")
if [ "$skips" -gt 0 ]; then
    printf '\n' >&2
    sort "$ROVE_SKIPPED" >&2
fi
if [ ${#failed[@]} -eq 0 ]; then
    what="all tests"
    [ "$skips" -eq 0 ] || what="all tests but $skips (skipped: see above)"
    printf '\n%sPASSED%s  %s, in %d s after %d s of building\n' \
        "$green" "$plain" "$what" "$tests_took" $((SECONDS - started - tests_took)) >&2
else
    printf '\n%sFAILED%s  %s\n' "$red" "$plain" "$(IFS=,; printf '%s' "${failed[*]}")" >&2
    exit 1
fi
