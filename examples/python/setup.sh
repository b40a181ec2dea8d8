#!/bin/sh
# Makes .venv beside this file, with what orchestrator.py needs: the packages of
# requirements.txt, and the stubs generated from proto/ into its site-packages.
# Run it again after a change of either; where nothing changed it does nothing.
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

# google/rpc is in proto/ to be imported from; its Python code comes with
# googleapis-common-protos, so only bridgebook's own files are generated.
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf "$site/bridgebook"
"$python" -m grpc_tools.protoc --proto_path="$proto" \
    --python_out="$site" --pyi_out="$site" --grpc_python_out="$site" \
    "$proto"/bridgebook/v1/*.proto

printf '%s\n' "$inputs" >"$venv/inputs.sha256"
