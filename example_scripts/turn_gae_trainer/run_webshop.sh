#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on WebShop with GAE over turns, on the plan-execute prompt: the control for HAE.
# All arguments are Hydra overrides, for example
#
#   bash example_scripts/turn_gae_trainer/run_webshop.sh trainer.total_training_steps=100 run_dir=outputs/mine
#
# lambda 0.95 over turns, as PPO is usually run; the CPU profile's 0.5 is for hae's executor, within a segment.
# Profiles, data and models are those of example_scripts/HiPER_trainer.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=../environment.sh
source "$here/../environment.sh"
profile="$(hiper_profile "$@")"
ensure_environment "$profile"

# exec: signals (Ctrl-C) reach the trainer, which ends everything it started.
exec "$PYTHON" -m recipe.hiper.main env=webshop \
    algorithm.adv_estimator=turn_gae algorithm.lam=0.95 "$@"
