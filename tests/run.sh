#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Set up the environment if need be and run what CI runs: all tests that are not marked nightly, in two processes, one
# of them for everything that starts Ray or vLLM. Options go to pytest (for example -x). Otherwise:
#
#   bash tests/run.sh tests/unit      # these tests, in one process; pytest's options as usual
#   bash tests/run.sh nightly         # the long tests that CI leaves out
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/example_scripts/environment.sh"
ensure_environment cpu
cd "$root"
export VERL_PLATFORM=cpu

# First what starts engines: it takes longest. pytest-xdist distributes the files in this order.
folders=(tests/e2e tests/integration tests/golden tests/unit)
selected=no
for argument in "$@"; do
    case "$argument" in -*) ;; *) selected=yes ;; esac
done
if [ "${1:-}" = nightly ]; then
    shift
    set -- -m nightly "${folders[@]}" "$@"
elif [ "$selected" = no ]; then
    set -- -m "not nightly" --numprocesses=2 --dist=loadscope --no-loadscope-reorder --durations=30 "${folders[@]}" "$@"
fi
exec "$PYTHON" -m pytest "$@"
