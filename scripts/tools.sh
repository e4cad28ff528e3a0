#!/usr/bin/env bash
# Gets the tools without which parts of `make verify` and `make test` are skipped, where nobody has to be asked: by apt-get (as root,
# or by sudo without a password) shellcheck and promtool, by cargo cargo-deny, and aioquic, with which a client that knows
# nothing of Rove's code is made, in a Python environment of its own in the cache.
# What cannot be got is named, and is no failure: the rest works without it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo -n)

# `package NAME PROGRAM`: a package of the distribution, for one program.
package() {
    command -v "$2" >/dev/null && return
    command -v apt-get >/dev/null || return 1
    install "$1" || { "${sudo[@]}" apt-get update -qq </dev/null >/dev/null 2>&1 && install "$1"; }
}
install() {
    # No service is to run because of it.
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$1" \
        </dev/null >/dev/null 2>&1
}

deny() {
    cargo deny --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-deny </dev/null >/dev/null 2>&1
}

aioquic() {
    python3 -c 'import aioquic' 2>/dev/null && return
    "$(python)" -c 'import aioquic' 2>/dev/null && return
    { python3 -m venv "$(python_home)" && "$(python)" -m pip install --quiet aioquic; } </dev/null >/dev/null 2>&1 && return
    # Half of one would be taken for the Python that tests are to use.
    rm -rf "$(python_home)"
    return 1
}

get() {
    local name=$1
    shift
    step "$name" "$@" || skipped "$name: not here, and cannot be got from here"
}

get "shellcheck" package shellcheck shellcheck
get "promtool" package prometheus promtool
get "aioquic" aioquic
get "cargo-deny" deny
