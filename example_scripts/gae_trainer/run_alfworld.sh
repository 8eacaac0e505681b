#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on ALFWorld with PPO as verl has it (GAE over the tokens of a reply), on a flat prompt.
# All arguments are Hydra overrides, for example
#
#   bash example_scripts/gae_trainer/run_alfworld.sh trainer.total_training_steps=100 run_dir=outputs/mine
#
# On the plan-execute prompt instead: env.env_name=alfworld/AlfredTWEnvOptions run_dir=outputs/hiper/alfworld-gae-options
# Profiles, data and models are those of example_scripts/HiPER_trainer.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=../environment.sh
source "$here/../environment.sh"
profile="$(hiper_profile "$@")"
ensure_environment "$profile"

# exec: signals (Ctrl-C) reach the trainer, which ends everything it started.
exec "$PYTHON" -m recipe.hiper.main env=alfworld \
    algorithm.adv_estimator=gae algorithm.gamma=1 algorithm.lam=1 env.env_name=alfworld/AlfredTWEnv "$@"
