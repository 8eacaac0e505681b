#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on WebShop with RLOO, on a flat prompt: groups of 8 episodes of a task, no critic.
# All arguments are Hydra overrides, for example
#
#   bash example_scripts/rloo_trainer/run_webshop.sh trainer.total_training_steps=100 run_dir=outputs/mine
#
# On the plan-execute prompt instead: env.env_name=WebshopOptions run_dir=outputs/hiper/webshop-rloo-options
# Resample tasks that are always won or always lost: algorithm.filter_groups.enable=True
# Profiles, data and models are those of example_scripts/HiPER_trainer.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=../environment.sh
source "$here/../environment.sh"
profile="$(hiper_profile "$@")"
ensure_environment "$profile"

# 64 episodes a step, as the other scripts play on a CPU, and 128 as the peers play on a GPU; mini-batches of 256 turns
# (verl multiplies that size by the size of a group).
tasks=8
if [ "$profile" = gpu ]; then tasks=16; fi

# exec: signals (Ctrl-C) reach the trainer, which ends everything it started.
exec "$PYTHON" -m recipe.hiper.main env=webshop \
    algorithm.adv_estimator=rloo env.env_name=Webshop \
    env.rollout.n=8 "data.train_batch_size=$tasks" actor_rollout_ref.actor.ppo_mini_batch_size=32 "$@"
