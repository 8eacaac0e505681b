#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Static checks, the fast ones first: style, format, import contracts, types. Stops at the first that fails.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/example_scripts/environment.sh"
ensure_environment cpu
cd "$root"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
"$PYTHON" -m mypy
