#!/usr/bin/env bash
# From `ssrl new` to two steps of GRPO with the new task, installed from its wheel in a clean environment. Prints the
# seconds of each part.
#
#   examples/publish/run.sh [FOLDER]        writes into FOLDER, which must not exist; runs/publish by default
#
# It requires Python 3.11 or 3.12 and a package index. It makes two environments: one for the author, and a clean one
# for training. SAMPLES=200 shortens the conformance check. `uv` installs the packages if it is on the path, otherwise
# pip.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=${1:-runs/publish}
mkdir -p "$(dirname "$folder")" && mkdir "$folder"
folder=$(cd "$folder" && pwd)
project=$folder/ssrl-plugin-tilted-view
author=$folder/author/bin
clean=$folder/clean/bin
times=()

step() {  # step NAME COMMAND...: runs the command and records its time
    local name=$1 begin=$SECONDS
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    "$@"
    times+=("$(printf '%5d s  %s' $((SECONDS - begin)) "$name")")
}

edit() {  # adds a third level, with smaller pieces
    sed -i 's/^CELLS = .*/CELLS = {"1": 3, "2": 5, "3": 6}  # level -> cells a side of the grid of pieces/' \
        "$project/ssrl_plugin_tilted_view/__init__.py"
    sed -i 's/^| `2` | .*/&\n| `3` | from a grid of 6 x 6 | 1\/4 |/' "$project/README.md"
    grep -q '"3": 6' "$project"/ssrl_plugin_tilted_view/__init__.py
}

install() {  # install PYTHON PACKAGES...
    if command -v uv >/dev/null; then
        uv pip install --quiet --python "$@"
    else
        "$1" -m pip install --quiet "${@:2}"
    fi
}

author_environment() {
    "${PYTHON:-python3}" -m venv "$folder/author"
    install "$author/python" "$root/plugins/ssrl-source-rooms" "$root[new,testing]" build
}

wheels() {  # of the core, the rooms, two of the five tasks, and the new task
    for source in "$root" "$root"/plugins/ssrl-{source-rooms,plugin-shuffled-patches,plugin-flipped-patch} "$project"; do
        "$author/python" -m build --wheel --outdir "$folder/dist" "$source" >"$folder/build.log"
    done
    ls "$folder/dist"
}

clean_environment() {
    "${PYTHON:-python3}" -m venv "$folder/clean"
    install "$clean/python" "$(echo "$folder"/dist/ssrl_core-*.whl)[train]" "$folder"/dist/ssrl_{source,plugin}_*.whl
    (cd "$folder" && "$clean/ssrl" list)
}

train() {
    cp "$here"/*.yaml "$folder"
    cd "$folder"
    "$clean/ssrl" tiny-model mix.yaml model
    "$clean/ssrl" sft sft.yaml model.path=model trainer.default_local_dir="$folder/sft"
    "$clean/ssrl" train grpo.yaml actor_rollout_ref.model.path="$folder/sft/global_step_16/huggingface" \
        trainer.default_local_dir="$folder/grpo"
}

step "the author's environment" author_environment
step "ssrl new" "$author/ssrl" new tilted-view -o "$folder"
step "edit" edit
step "install it to work on it" install "$author/python" --editable "$project"
step "ssrl check" "$author/ssrl" check tilted_view -n "${SAMPLES:-1000}"
step "build the wheels" wheels
step "install into a clean environment" clean_environment
step "tiny model, cold start, two steps of GRPO" train

printf '\n'
printf '%s\n' "${times[@]}"
