#!/usr/bin/env bash
# Rove and its peers, side by side: installs the peers from Debian's packages where that is possible, builds, measures, and writes
# peers.md and peers.json. Arguments go to the program (`--only nats,etcd`, `--rounds 3`, `--seconds 5`; --help has all).
# BENCH_DIR is where data and results go, so which disk is measured (default: beside what cargo builds).
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

# Package, and the program that tells whether it is there.
packages=(nats-server:nats-server etcd-server:etcd ejabberd:ejabberdctl erlang-p1-sqlite3: mosquitto:mosquitto strace:strace)
# What they would start, now or with the machine.
units=(nats-server etcd ejabberd epmd mosquitto)

present() {
    local package=${1%%:*} program=${1#*:}
    if [ -n "$program" ]; then
        [ -n "$(PATH="$PATH:/usr/sbin:/sbin" command -v "$program")" ]
    else
        dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q 'ok installed'
    fi
}

# Installs one package, with its service neither started now nor ever. What ran before goes on: a unit that is there already
# is not touched.
install_package() {
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends "$1" >/dev/null
}

install_missing() {
    local missing=() each unit policy=/usr/sbin/policy-rc.d
    for each in "${packages[@]}"; do present "$each" || missing+=("${each%%:*}"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        skipped "not installed, and this is not root on Debian: ${missing[*]}. What needs them is left out."
        return 0
    fi
    for unit in "${units[@]}"; do
        if [ ! -e "/lib/systemd/system/$unit.service" ] && [ ! -e "/etc/systemd/system/$unit.service" ]; then
            mkdir -p /etc/systemd/system
            ln -s /dev/null "/etc/systemd/system/$unit.service"
            printf '     %s.service is masked: systemctl unmask %s undoes it\n' "$unit" "$unit" >&2
        fi
    done
    # Where there is no systemd, and one whose mask it does not know yet: nothing may be started by a package.
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        # shellcheck disable=SC2064
        trap "rm -f '$policy'" EXIT
    fi
    step "package lists" apt-get update --quiet=2 || true
    for each in "${missing[@]}"; do
        step "install $each" install_package "$each" || skipped "$each cannot be installed: what needs it is left out"
    done
    if [ "$(cat "$policy" 2>/dev/null)" = $'#!/bin/sh\nexit 101' ]; then rm -f "$policy"; fi
    trap - EXIT
}

install_missing
export PATH="$PATH:/usr/sbin:/sbin"

cargo build --release --locked --workspace --bins
target=$(target_dir)
cargo build --release --locked --manifest-path benches/peers/Cargo.toml --target-dir "$target"

dir=${BENCH_DIR:-$target/bench-peers}
mkdir -p "$dir"
if [ "$(stat --file-system --format %T "$dir")" = tmpfs ]; then
    printf '%s is in memory, where an fsync costs nothing: set BENCH_DIR to a directory on a disk.\n' "$dir" >&2
    exit 1
fi
# A server that inherits less cannot hold the idle connections.
ulimit -S -n "$(ulimit -H -n)"
exec "$target/release/peers" --dir "$dir" --out "$dir" "$@"
