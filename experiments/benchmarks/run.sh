#!/usr/bin/env bash
# Every measurement, one after the other; each writes its table to standard output. TRAINCTL_DATA adds the real data sets.
#   make bench            or, for one of them:   .venv/bin/python experiments/benchmarks/speed/run.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
PYTHON=${PYTHON:-../../.venv/bin/python}
for name in speed/run csv/run accuracy/run sweeps/overhead sweeps/noop sweeps/quality; do
  printf '\n## %s\n\n' "$name"
  "$PYTHON" "$name.py"
done
