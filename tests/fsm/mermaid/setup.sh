#!/bin/sh
# Installs the packages of package-lock.json beside a copy of read.mjs, in the directory $1.
# Run it again after a change; otherwise it does nothing.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cp "$here/package.json" "$here/package-lock.json" "$here/read.mjs" "$1"
inputs=$(cat "$here/setup.sh" "$here/package.json" "$here/package-lock.json" | sha256sum)
if [ "$(cat "$1/node_modules/.inputs.sha256" 2>/dev/null)" = "$inputs" ]; then
    exit 0
fi

# No package needs its install scripts.
(cd "$1" && npm ci --ignore-scripts --no-audit --no-fund --silent)
printf '%s\n' "$inputs" >"$1/node_modules/.inputs.sha256"
