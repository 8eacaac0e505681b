#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Set up the environment if need be and run what CI runs. Arguments go to pytest (for example tests/unit);
# `bash tests/run.sh nightly` runs the long tests that CI leaves out.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/example_scripts/environment.sh"
ensure_environment cpu
cd "$root"
export VERL_PLATFORM=cpu
folders=(tests/unit tests/integration tests/e2e)
if [ "${1:-}" = nightly ]; then
    shift
    set -- -m nightly "${folders[@]}" "$@"
elif [ $# -eq 0 ]; then
    set -- -m "not nightly" "${folders[@]}"
fi
exec "$PYTHON" -m pytest "$@"
