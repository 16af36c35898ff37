# Sourced by the scripts beside it: a virtual environment with kvparity in it.
# KVPARITY_VENV: its folder (default .venv). KVPARITY_PYTHON: the interpreter that makes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${KVPARITY_VENV:-.venv}
python=${KVPARITY_PYTHON:-python3}

if [ ! -x "$venv/bin/python" ]; then
  echo "setup: virtual environment in $venv" >&2
  "$python" -m venv "$venv"
fi
export PATH="$PWD/$venv/bin:$PATH"
case $venv in /*) export PATH="$venv/bin:$PATH" ;; esac

constraints=()
if ! { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1; then
  constraints=(--constraint ci/constraints-cpu.txt)
fi

# install EXTRAS: kvparity, editable, with the extras named.
install() {
  echo "setup: installing kvparity[$1]" >&2
  python -m pip install --quiet --disable-pip-version-check "${constraints[@]}" --editable ".[$1]"
}
