#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Set up the environment if need be and run what CI runs. Arguments go to pytest (for example tests/unit).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/example_scripts/environment.sh"
ensure_environment cpu
cd "$root"
export VERL_PLATFORM=cpu
if [ $# -eq 0 ]; then set -- tests/unit tests/golden tests/integration tests/e2e; fi
exec "$PYTHON" -m pytest "$@"
