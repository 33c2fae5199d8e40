#!/usr/bin/env bash
# Makes the virtual environment $1 with the Python client and what its tests need; does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
env=$1
stamp=$env/.stamp
current=$(cat tools/python_env.sh tests/chart/requirements.txt tools/metrics/requirements.txt clients/python/pyproject.toml proto/salamander/v1/*.proto | sha256sum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$current" ] && exit 0
python3 -m venv "$env"
"$env/bin/pip" install -q --disable-pip-version-check setuptools wheel grpcio-tools pytest \
  -r tests/chart/requirements.txt -r tools/metrics/requirements.txt
"$env/bin/pip" install -q --disable-pip-version-check --no-build-isolation -e clients/python
echo "$current" > "$stamp"
