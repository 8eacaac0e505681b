#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train a plan-execute agent on TextCraft with HAE. All arguments are Hydra overrides, for example
#
#   bash example_scripts/HiPER_trainer/run_textcraft.sh trainer.total_training_steps=100 run_dir=outputs/mine
#
# Without a GPU: profile=cpu (recipe trees of depth 1 to 3, a small model that is warm-started on first use). With one:
# profile=gpu (Qwen2.5-1.5B-Instruct, depth 1 to 4).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=../environment.sh
source "$here/../environment.sh"
ensure_environment "$(hiper_profile "$@")"

# exec: signals (Ctrl-C) reach the trainer, which ends everything it started.
exec "$PYTHON" -m recipe.hiper.main env=textcraft "$@"
