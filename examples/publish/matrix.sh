#!/usr/bin/env bash
# Runs the tests of each plugin in a clean environment with the wheels of the core, the rooms and this plugin:
#   matrix.sh [FOLDER] [PLUGIN...]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=${1:-$(mktemp -d)}
shift || true
plugins=("$@")
[ ${#plugins[@]} -gt 0 ] || plugins=("$root"/plugins/ssrl-plugin-*)
python=${PYTHON:-python3}
mkdir -p "$work"

"$python" -m venv "$work/build"
"$work/build/bin/python" -m pip install -q build
for source in "$root" "$root/plugins/ssrl-source-rooms"; do
    "$work/build/bin/python" -m build -q --wheel -o "$work/wheels" "$source"
done
for plugin in "${plugins[@]}"; do
    plugin=$root/plugins/$(basename "$plugin")
    name=$(basename "$plugin")
    "$work/build/bin/python" -m build -q --wheel -o "$work/wheels" "$plugin"
    rm -rf "$work/$name"
    "$python" -m venv "$work/$name"
    "$work/$name/bin/python" -m pip install -q --find-links "$work/wheels" "ssrl-core[testing]" "$name" \
        hypothesis pytest-timeout scikit-image
    "$work/$name/bin/ssrl" list
    # From another folder, so that Python does not find the packages of the clone.
    (cd "$work" && "$work/$name/bin/python" -m pytest -q -p no:cacheprovider --import-mode=importlib "$plugin/tests") | tail -3
    rm -rf "${work:?}/$name"
done
