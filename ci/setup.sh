# Sourced by the scripts beside it: a virtual environment with kvparity in it.
# KVPARITY_VENV: its folder (default .venv). KVPARITY_PYTHON: the interpreter that makes it.
# KVPARITY_CONSTRAINTS: the versions that are installed (default ci/constraints.txt; empty: whatever
# pip finds).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Tests start many processes; without kept bytecode each compiles every module that it imports.
unset PYTHONDONTWRITEBYTECODE

venv=${KVPARITY_VENV:-.venv}
python=${KVPARITY_PYTHON:-python3}
pins=${KVPARITY_CONSTRAINTS-ci/constraints.txt}

if [ ! -x "$venv/bin/python" ]; then
  echo "setup: virtual environment in $venv" >&2
  "$python" -m venv "$venv"
fi
export PATH="$PWD/$venv/bin:$PATH"
case $venv in /*) export PATH="$venv/bin:$PATH" ;; esac

# get WHAT...: pip install, quietly, at the pinned versions. Variables, not options: only they reach
# the environment in which pip builds this checkout (the second since pip 25.3).
get() {
  local pinned=()
  [ -z "$pins" ] || pinned=(PIP_CONSTRAINT="$pins" PIP_BUILD_CONSTRAINT="$pins")
  env "${pinned[@]}" python -m pip install --quiet --disable-pip-version-check "$@"
}

# install EXTRA: kvparity, editable, with the extra named. What is then there must be what is pinned.
install() {
  echo "setup: installing kvparity[$1]" >&2
  get --editable ".[$1]"
  [ -z "$pins" ] || python ci/pins.py "$pins" "$1"
}
