# SPDX-License-Identifier: Apache-2.0
"""Hydra's configuration: hiper_trainer.yaml on top of verl's ppo_trainer, groups env and profile."""
