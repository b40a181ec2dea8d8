#!/bin/sh
# Creates .venv beside this file, with the packages of requirements.txt and the gRPC stubs
# generated from proto/. Run it again after a change of either; otherwise it does nothing.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
proto=$(cd "$here/../../proto" && pwd)
venv=$here/.venv
python=$venv/bin/python

inputs=$(cat "$here/setup.sh" "$here/requirements.txt" "$proto"/bridgebook/v1/*.proto | sha256sum)
if [ -x "$python" ] && [ "$(cat "$venv/inputs.sha256" 2>/dev/null)" = "$inputs" ]; then
    exit 0
fi

[ -x "$python" ] || python3 -m venv --clear "$venv"
"$python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"

# Generates only bridgebook's own files, because the Python code of google/rpc is part of
# googleapis-common-protos.
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf "$site/bridgebook"
"$python" -m grpc_tools.protoc --proto_path="$proto" \
    --python_out="$site" --pyi_out="$site" --grpc_python_out="$site" \
    "$proto"/bridgebook/v1/*.proto

printf '%s\n' "$inputs" >"$venv/inputs.sha256"
