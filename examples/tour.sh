#!/usr/bin/env bash
# Shows bridgebook at work: starts the service with its own database, and three bridge nodes.
# The orchestrator (Python) stamps every file under DIRECTORY, the reducer (Node.js) counts the
# completed workflows, and the registry node (Rust) only stays registered. When everything is
# counted, the script prints the dashboard, and a board of all states that is made from the journal.
# Then it stops all processes and removes all files.
#
#   examples/tour.sh        # DIRECTORY is this repository's src
#   examples/tour.sh docs   # or another one
#
# Exit status 0: every file was stamped and counted, and every process exited with 0.
#
# BRIDGEBOOK_BIN, REGISTRY_NODE_BIN and STATE_BOARD_BIN are paths of existing builds. Without them
# cargo builds the programs, in release mode if a release build exists.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
directory=$(cd "${1:-$root/src}" && pwd)

timeout=120  # Seconds for each wait; only a failure takes this long.
node_pids=()  # In the order of their start.
server_pid=
dir=

fail() {
    echo "tour: $1" >&2
    # Prints the logs, because the directory is removed.
    tail -n 20 "$dir"/*.log >&2
    exit 1
}

# Stops all processes and removes all files, also after a failure.
clean_up() {
    local status=$?
    # Ignores further signals, so that the cleanup completes.
    trap - EXIT
    trap '' INT TERM
    # The service comes last, because the nodes deregister first. It stops its own PostgreSQL.
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

# eventually WHAT PID COMMAND...: waits until the command succeeds. Fails if the process exits.
eventually() {
    local what=$1 pid=$2 end=$((SECONDS + timeout))
    shift 2
    until "$@"; do
        kill -0 "$pid" 2>/dev/null || fail "the process exited while waiting for: $what"
        [ "$SECONDS" -lt "$end" ] || fail "timed out after $timeout s waiting for: $what"
        sleep 0.1
    done
}

# start NAME COMMAND...: starts a node that logs to NAME.log.
start() {
    local name=$1
    shift
    "$@" >"$dir/$name.log" 2>&1 &
    node_pids+=($!)
    eventually "first output of the $name" $! test -s "$dir/$name.log"
}

# stop PID WHAT: sends SIGTERM and requires exit status 0.
stop() {
    local status=0
    kill "$1" 2>/dev/null || fail "the $2 exited before it was stopped"
    wait "$1" || status=$?
    [ "$status" = 0 ] || fail "the $2 exited with status $status"
}

echo "== preparing"
if [ -z "${BRIDGEBOOK_BIN:-}" ] || [ -z "${REGISTRY_NODE_BIN:-}" ] || [ -z "${STATE_BOARD_BIN:-}" ]; then
    profile=()
    target=debug
    if [ -x "$root/target/release/bridgebook" ]; then
        profile=(--release)
        target=release
    fi
    (cd "$root" && cargo build --quiet --target-dir target "${profile[@]}" --bin bridgebook \
        --example registry_node --example state_board)
    BRIDGEBOOK_BIN=$root/target/$target/bridgebook
    REGISTRY_NODE_BIN=$root/target/$target/examples/registry_node
    STATE_BOARD_BIN=$root/target/$target/examples/state_board
fi
"$root/examples/python/setup.sh"
"$root/examples/node/setup.sh"

dir=$(mktemp -d)
chmod o+x "$dir" # PostgreSQL may run as another user, which must enter the directory.

echo "== starting the service"
# The service chooses a free port and logs it.
env -u DATABASE_URL BRIDGEBOOK_LOG=info "$BRIDGEBOOK_BIN" serve --listen 127.0.0.1:0 --data-dir "$dir/data" \
    --auth tokens 2>"$dir/service.log" &
server_pid=$!
eventually "the listening address in the log" "$server_pid" grep -q 'listening on 127' "$dir/service.log"
address=$(sed -n 's/.*listening on \(127[0-9.:]*\).*/\1/p' "$dir/service.log" | head -n 1)
is_serving() {
    "$BRIDGEBOOK_BIN" health "$address" >/dev/null 2>&1
}
eventually "the service to be SERVING" "$server_pid" is_serving
echo "SERVING on $address"

# A writer token for the nodes, limited to their namespace, and an admin token for the dashboard.
token() {
    env -u DATABASE_URL BRIDGEBOOK_LOG=warn "$BRIDGEBOOK_BIN" token create --data-dir "$dir/data" "$@" 2>>"$dir/service.log"
}
BRIDGEBOOK_TOKEN=$(token --name nodes --role writer --namespace demo) || fail "cannot create a token"
export BRIDGEBOOK_TOKEN
admin_token=$(token --name dashboard --role admin) || fail "cannot create a token"

echo "== starting the nodes"
python=$root/examples/python
start registry "$REGISTRY_NODE_BIN" --address "$address"
start reducer node "$root/examples/node/reducer.js" --address "$address"
# Prints its first line when all files are stamped, and then checks for changes.
start orchestrator "$python/.venv/bin/python" "$python/orchestrator.py" --json --address "$address" \
    --every 1 "$directory"
head -n 1 "$dir/orchestrator.log"

echo "== the dashboard, when everything is counted"
# Runs in the background, because a trap runs during wait, but not during a foreground command.
BRIDGEBOOK_TOKEN=$admin_token node "$root/examples/node/dashboard.js" --address "$address" --wait "$timeout" &
dashboard=$!
node_pids+=("$dashboard")
wait "$dashboard" || fail "the dashboard failed, or not every workflow was counted"
unset 'node_pids[-1]'

echo "== the states of all entities, from the journal"
"$STATE_BOARD_BIN" --address "$address" --once || fail "the board failed"

echo "== stopping"
for name in registry reducer orchestrator; do
    stop "${node_pids[0]}" "$name"
    node_pids=("${node_pids[@]:1}")
    echo "the $name stopped"
done
stop "$server_pid" "service"
server_pid=
echo "the service stopped"
