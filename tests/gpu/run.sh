#!/usr/bin/env bash
# Every figure that needs a GPU, in under eight minutes, into one JSON file:
#     tests/gpu/run.sh [FILE.json] [--reference DIR]
# PYTHON names another interpreter than the project's environment, .venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=gpu-figures.json
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then
  out=$1
  shift
fi
python=${PYTHON:-}
if [ -z "$python" ]; then
  python=python3
  [ -x .venv/bin/python ] && python=.venv/bin/python
fi
if ! missing=$("$python" - <<'PY'
import importlib.util
names = ("torch", "numpy", "msgspec", "safetensors", "platformdirs", "PIL", "ftfy", "transformers")
print(" ".join(name for name in names if importlib.util.find_spec(name) is None))
PY
); then
  echo "$python does not run." >&2
  exit 1
fi
if [ -n "$missing" ]; then
  echo "missing here: $missing. Install the project with: pip install -e .[gpu,test]" >&2
  exit 1
fi
exec timeout 480 "$python" tests/gpu/figures.py --out "$out" "$@"
