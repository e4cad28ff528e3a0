#!/usr/bin/env bash
# Builds the server and the client, optimised, and starts three nodes as one cluster on loopback, in a directory of their own. Two accounts
# on different nodes talk while a node that leads several partitions is killed (SIGKILL) and started again; then a node is drained, each is
# restarted, one loses its disk and is replaced, and a fourth comes and goes. What happened is checked and printed,
# and the exit code is 0 only if all of it held. On a terminal the cluster goes on afterwards, until Ctrl-C.
#
# Every command of rove-server here is on docs/operations.md, which says which ones are not here: tests/e2e/operations_page.rs holds the
# two together. Nothing is left: each process is stopped by its id.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

# ROVE_BIN: a directory with binaries that are built already.
if [ -z "${ROVE_BIN:-}" ]; then
    cargo build --release --locked --workspace --bins
fi
bin="${ROVE_BIN:-$(target_dir)/release}"
export PATH="$bin:$PATH"

# An address of its own, so that the ports are free: 127.0.0.0/8 is all loopback. Ports below those that the system gives away.
host="127.$((1 + $$ / 65536 % 254)).$(($$ / 256 % 256)).$(($$ % 256))"
dir="$(mktemp -d "${TMPDIR:-/tmp}/rove-cluster.XXXXXX")"
cd "$dir"

pid() { cat "node-$1/pid"; }
config() { echo "node-$1/rove.toml"; }

start() {
    rove-server serve --config "$(config "$1")" --ready-file "node-$1/ready" >/dev/null 2>>"node-$1/log" &
    echo $! >"node-$1/pid"
    # It is ended by its id; bash need not tell of it.
    disown
}

# Waits until node $1 says so itself, 30 s at most.
ready() {
    for _ in $(seq 300); do
        # Alive, and as ready as a load balancer asks.
        kill -0 "$(pid "$1")" 2>/dev/null || { echo "node $1 has stopped:" >&2; tail -n 5 "node-$1/log" >&2; return 1; }
        if [ "$(curl --silent --insecure --max-time 2 "https://$host:2000$1/readyz")" = ready ]; then return 0; fi
        sleep 0.1
    done
    echo "node $1 is not ready after 30 s:" >&2
    tail -n 5 "node-$1/log" >&2
    return 1
}

# Waits until process $1 is gone, 30 s at most.
gone() {
    for _ in $(seq 300); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    return 1
}

stop() {
    local id
    id="$(pid "$1" 2>/dev/null)" || return 0
    kill -TERM "$id" 2>/dev/null || return 0
    # Its own patience is shorter.
    gone "$id" || kill -KILL "$id" 2>/dev/null || true
}

cleanup() {
    local status=$?
    trap - EXIT INT TERM
    for node in 1 2 3 4; do stop "$node"; done
    if [ "$status" -eq 0 ]; then rm -rf "$dir"; else echo "logs are kept in $dir" >&2; fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Waits until node 1 has noticed that node $1 waits to be let in, 30 s at most.
noticed() {
    for _ in $(seq 300); do
        rove-server cluster status --config "$(config 1)" >answer
        if grep -q "rove-server cluster $2 $1" answer; then return 0; fi
        sleep 0.1
    done
    echo "node $1 is not noticed after 30 s:" >&2
    cat answer >&2
    return 1
}

# Has node $2 lead partition $1, 10 s at most. That it does already is as good; one that is busy for a moment is asked again.
lead() {
    for _ in $(seq 50); do
        rove-server cluster transfer-leader "$1" "$2" --config "$(config 2)" 2>refused && return 0
        if grep -q 'leads already' refused; then return 0; fi
        sleep 0.2
    done
    cat refused >&2
    return 1
}

# Nothing needs anybody's attention, as node 1 sees it.
calm() {
    sleep 1.5 # each has asked the others how they are, once a second
    rove-server cluster status --config "$(config 1)"
    rove-server cluster status --config "$(config 1)" --json >status.json
    grep -q '"warnings":\[\]' status.json || { echo "FAILED  the cluster has warnings" >&2; return 1; }
}

make_node() {
    local node=$1 peers=(1 2 3)
    [ "$node" -le 3 ] || peers+=("$node")
    mkdir -p "node-$node"
    # One certificate for clients, the same on every node.
    [ "$node" -eq 1 ] || cp node-1/cert.pem node-1/key.pem "node-$node/"
    rove-server init --dir "node-$node" --host "$host" --listen "$host:2000$node" >/dev/null 2>&1
    rove-server pki node --ca ca --node "$node" --out "node-$node" 2>/dev/null
    sed -i.bak "s/^node_id = 1/node_id = $node/" "$(config "$node")"
    {
        printf '\n[accounts]\nrate_limits = false\n'
        printf '\n[cluster]\nname = "demo"\nlisten = "%s"\n' "$host:2001$node"
        printf 'ca = "ca.pem"\ncertificate = "node-%s.pem"\nkey = "node-%s.key"\n' "$node" "$node"
        for peer in "${peers[@]}"; do
            printf '\n[[cluster.peers]]\nnode = %s\naddress = "%s"\n' "$peer" "$host:2001$peer"
        done
    } >>"$(config "$node")"
}

rove-server pki ca --cluster demo --out ca 2>/dev/null
for node in 1 2 3; do make_node "$node"; done
echo "Three nodes in $dir, on $host."
for node in 1 2 3; do start "$node"; done
for node in 1 2 3; do ready "$node"; done
calm

pin="$(sed -n 's/.*pin=//p' node-1/ready)"
first="rove://$host:20001,$host:20002,$host:20003?pin=$pin"
second="rove://$host:20002,$host:20003,$host:20001?pin=$pin"

# Where alice is, made the leader of the directory and of two partitions first, so that a leader is what is killed. Leaders are spread
# evenly meanwhile: which ones it leads is looked up then.
victim=1
for partition in 0 1 2; do lead "$partition" "$victim"; done

cat >fault.sh <<EOF
set -e
cd "$dir"
rove-server cluster status --config $(config 2) --json >before.json
led=\$(tr '{' '\\n' <before.json | sed -n 's/^"partition":\([0-9]*\),"leader":$victim,.*/\1/p' | paste -s -d ' ' -)
[ -n "\$led" ] || { echo "node $victim leads nothing: killing it would show nothing" >&2; exit 1; }
kill -KILL $(pid $victim)
echo "      ~~~~~  node $victim, leader of \$led, is killed  ~~~~~"
sleep 3
rove-server cluster status --config $(config 2)
rove-server serve --config $(config $victim) --ready-file node-$victim/ready >/dev/null 2>>node-$victim/log &
echo \$! >node-$victim/pid
echo "      ~~~~~  node $victim is started again  ~~~~~"
sleep 3
EOF
echo
rove demo --at "$first" --at "$second" --meanwhile "sh $dir/fault.sh"

echo
ready "$victim"
echo "Node 3 is drained, and taken back:"
rove-server cluster drain --config "$(config 3)"
rove-server cluster drain --undo --config "$(config 3)"
echo
echo "Each node is restarted in its turn (what an upgrade is):"
for node in 1 2 3; do
    stop "$node"
    start "$node"
    ready "$node"
    echo "  node $node is back"
done
echo
echo "Node 3 loses its disk, and is replaced:"
kill -KILL "$(pid 3)"
gone "$(pid 3)"
rm -rf node-3/data
start 3
noticed 3 replace
rove-server cluster replace 3 --config "$(config 1)"
ready 3
calm
echo
echo "A fourth node is taken in, drained and removed:"
make_node 4
start 4
noticed 4 add
rove-server cluster add 4 --config "$(config 1)"
ready 4
rove-server cluster drain --config "$(config 4)"
rove-server cluster remove 4 --config "$(config 1)"
gone "$(pid 4)"
grep -q 'node 4 was removed from the cluster' node-4/log || { echo "FAILED  node 4 does not know that it was removed" >&2; exit 1; }
rm node-4/pid
for node in 1 2 3; do ready "$node"; done
echo
echo "ok      all of it held"

if [ -t 0 ] && [ -t 1 ] && [ -z "${CI:-}" ]; then
    cat <<EOF

The cluster goes on until Ctrl-C. In another terminal:
  export PATH="$bin:\$PATH"
  rove sign-up carla --server '$first'
  rove-server cluster status --config $dir/$(config 1)
  kill -KILL \$(cat $dir/node-2/pid)
EOF
    while true; do sleep 60; done
fi
