#!/usr/bin/env bash
# Makes an environment on top of another one: tests/environment.sh FOLDER VENV REQUIREMENTS
#
# It sees all packages of VENV, the environment of `make install`, which stays as it is. REQUIREMENTS lists what VENV
# lacks or has in another version, with the dependencies of each, because it is installed without dependencies.
set -euo pipefail
to=$1 venv=$(cd "$2" && pwd)
"$venv/bin/python" -m venv --without-pip --clear "$to"
site=$(echo "$to"/lib/python3*/site-packages)
echo "import site; site.addsitedir('$(echo "$venv"/lib/python3*/site-packages)')" > "$site/base.pth"
"$venv/bin/python" -m pip --python "$to/bin/python" install -q --no-deps -r "$3"
