#!/bin/sh
# Installs the packages of package-lock.json into node_modules beside this file.
# Run it again after a change of that file; otherwise it does nothing.
set -eu

here=$(cd "$(dirname "$0")" && pwd -P) # npm fails on a path with symbolic links
inputs=$(cat "$here/setup.sh" "$here/package.json" "$here/package-lock.json" | sha256sum)
if [ "$(cat "$here/node_modules/.inputs.sha256" 2>/dev/null)" = "$inputs" ]; then
    exit 0
fi

# No package needs its install scripts.
npm ci --prefix "$here" --ignore-scripts --no-audit --no-fund --silent
printf '%s\n' "$inputs" >"$here/node_modules/.inputs.sha256"
