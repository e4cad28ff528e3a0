# Shared by the scripts beside it. Sourced, from the root of the tree.
# shellcheck shell=bash

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' plain=$'\e[0m'
else
    bold="" green="" red="" dim="" plain=""
fi

# Where cargo puts what it builds, whether the environment, a configuration or nobody says so.
target_dir() {
    cargo metadata --no-deps --format-version 1 --quiet | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# Where scripts/tools.sh puts modules for Python, and the Python that has them; plain python3 otherwise.
python_home() { printf '%s\n' "${ROVE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rove}/python"; }
python() {
    local own
    own="$(python_home)/bin/python3"
    if [ -x "$own" ]; then printf '%s\n' "$own"; else command -v python3 || echo python3; fi
}

# `step TITLE COMMAND…` runs the command, says how it went and how long it took, and hands on its exit code.
step() {
    local title=$1 started status=0
    shift
    printf '%s==>%s %s %s(%s)%s\n' "$bold" "$plain" "$title" "$dim" "$*" "$plain" >&2
    started=$SECONDS
    "$@" || status=$?
    if [ "$status" -eq 0 ]; then
        printf '%s ok%s  %s, %d s\n' "$green" "$plain" "$title" $((SECONDS - started)) >&2
    else
        printf '%sFAILED%s %s, exit code %d after %d s\n' "$red" "$plain" "$title" "$status" $((SECONDS - started)) >&2
    fi
    return "$status"
}

skipped() { printf '%s -- %s %s\n' "$dim" "$plain" "$*" >&2; }
