#!/usr/bin/env bash
# Builds the server and the client, optimised, and runs the demo: a server in a directory of its own, two accounts, and
# a conversation between them. On a terminal one chats oneself; anywhere else the conversation is scripted, checked, and
# the exit code says whether all of it held. Arguments go to the demo. `--build-only` stops after the build.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

cargo build --release --locked --workspace --bins
[ "${1:-}" = --build-only ] && exit 0

bin="$(target_dir)/release"
# The chat wants a terminal on both ends, and somebody in front of it.
if [ ! -t 0 ] || [ ! -t 1 ] || [ -n "${CI:-}" ]; then
    set -- --script "$@"
fi
# Not `exec`: an interrupt reaches the demo, which stops its server and cleans up, and this script reports its exit code.
"$bin/rove" demo --server-binary "$bin/rove-server" "$@"
