#!/usr/bin/env bash
# bridgebook at work: starts the service with a database of its own, and three bridge nodes:
# an orchestrator in Python that stamps every file under DIRECTORY, a reducer in Node.js that
# adds up what it did, and a registry node in Rust. When everything is counted it prints the
# dashboard, stops them all, and leaves nothing behind.
#
#   examples/tour.sh [DIRECTORY]        (default: this repository's src)
#
# Exit status 0: every file was stamped and counted, and all nodes ended well.
#
# BRIDGEBOOK_BIN and REGISTRY_NODE_BIN name programs that are built already. Without them
# cargo builds both, in release mode if there is such a build, so that it is used.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
directory=$(cd "${1:-$root/src}" && pwd)

patience=120 # Seconds for each thing that is waited for; only what fails takes as long.
node_pids=() # In the order in which they were started.
server_pid=
dir=

fail() {
    echo "tour: $1" >&2
    # What everybody said last; it goes with the directory otherwise.
    tail -n 20 "$dir"/*.log >&2
    exit 1
}

# Whatever happens, nothing stays behind: neither processes nor files.
clean_up() {
    local status=$?
    # To the end, however often somebody presses Ctrl-C.
    trap - EXIT
    trap '' INT TERM
    # The service last: the nodes say goodbye to it. Its PostgreSQL goes with it.
    for pid in "${node_pids[@]}" $server_pid; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    [ -z "$dir" ] || rm -rf "$dir"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# eventually WHAT PID COMMAND...: waits until the command succeeds, as long as the process lives.
eventually() {
    local what=$1 pid=$2 end=$((SECONDS + patience))
    shift 2
    until "$@"; do
        kill -0 "$pid" 2>/dev/null || fail "it ended instead: $what"
        [ "$SECONDS" -lt "$end" ] || fail "waited in vain: $what"
        sleep 0.1
    done
}

# start NAME COMMAND...: starts a node, which writes to NAME.log.
start() {
    local name=$1
    shift
    "$@" >"$dir/$name.log" 2>&1 &
    node_pids+=($!)
    eventually "the $name works" $! test -s "$dir/$name.log"
}

# stop PID WHAT: asks a process to end, and waits for it to end well.
stop() {
    local status=0
    kill "$1" 2>/dev/null || fail "the $2 was gone already"
    wait "$1" || status=$?
    [ "$status" = 0 ] || fail "the $2 ended with status $status"
}

echo "== making ready"
if [ -z "${BRIDGEBOOK_BIN:-}" ] || [ -z "${REGISTRY_NODE_BIN:-}" ]; then
    profile=()
    target=debug
    if [ -x "$root/target/release/bridgebook" ]; then
        profile=(--release)
        target=release
    fi
    (cd "$root" && cargo build --quiet --target-dir target "${profile[@]}" --bin bridgebook --example registry_node)
    BRIDGEBOOK_BIN=$root/target/$target/bridgebook
    REGISTRY_NODE_BIN=$root/target/$target/examples/registry_node
fi
"$root/examples/python/setup.sh"
"$root/examples/node/setup.sh"

dir=$(mktemp -d)
chmod o+x "$dir" # For the user that PostgreSQL runs as.

echo "== starting the service"
# A port that is free; the log says which.
env -u DATABASE_URL BRIDGEBOOK_LOG=info "$BRIDGEBOOK_BIN" serve --listen 127.0.0.1:0 --data-dir "$dir/data" \
    --auth tokens 2>"$dir/service.log" &
server_pid=$!
eventually "the service listens" "$server_pid" grep -q 'listening on 127' "$dir/service.log"
address=$(sed -n 's/.*listening on \(127[0-9.:]*\).*/\1/p' "$dir/service.log" | head -n 1)
is_serving() {
    "$BRIDGEBOOK_BIN" health "$address" >/dev/null 2>&1
}
eventually "the service is SERVING" "$server_pid" is_serving
echo "SERVING on $address"

# One for the nodes, which may write in their namespace, and one for who looks at the whole.
token() {
    env -u DATABASE_URL BRIDGEBOOK_LOG=warn "$BRIDGEBOOK_BIN" token create --data-dir "$dir/data" "$@" 2>>"$dir/service.log"
}
BRIDGEBOOK_TOKEN=$(token --name nodes --role writer --namespace demo) || fail "there is no token"
export BRIDGEBOOK_TOKEN
admin_token=$(token --name dashboard --role admin) || fail "there is no token"

echo "== starting the nodes"
python=$root/examples/python
start registry "$REGISTRY_NODE_BIN" --address "$address"
start reducer node "$root/examples/node/reducer.js" --address "$address"
# It says something when all files are stamped, and then looks for changes.
start orchestrator "$python/.venv/bin/python" "$python/orchestrator.py" --json --address "$address" \
    --every 1 "$directory"
head -n 1 "$dir/orchestrator.log"

echo "== the dashboard, when everything is counted"
# In the background, because a signal ends a wait and does not end a command.
BRIDGEBOOK_TOKEN=$admin_token node "$root/examples/node/dashboard.js" --address "$address" --wait "$patience" &
dashboard=$!
node_pids+=("$dashboard")
wait "$dashboard" || fail "not everything was counted"
unset 'node_pids[-1]'

echo "== stopping"
for name in registry reducer orchestrator; do
    stop "${node_pids[0]}" "$name"
    node_pids=("${node_pids[@]:1}")
    echo "the $name ended"
done
stop "$server_pid" "service"
server_pid=
echo "the service ended"
