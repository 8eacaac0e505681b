# SPDX-License-Identifier: Apache-2.0
"""HiPER's own keys: every one has a reader, and verl never sees those it would refuse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from key_readers import keys_read, keys_read_in, unread
from made_config import CONFIG_FOLDER, ENVIRONMENTS, PROFILES, check, composed, own_keys
from omegaconf import OmegaConf

from recipe.hiper.configuration.keys import PROFILES as OFFERED_PROFILES
from recipe.hiper.configuration.overrides import PRESETS
from recipe.hiper.configuration.settings import (
    OWN_KEYS,
    CheckpointSettings,
    HiPERSettings,
    number_of_heads,
    shaping_config,
    verl_config,
)
from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.estimators.registry import EstimatorConfig
from recipe.hiper.estimators.shaping import ShapingConfig
from recipe.hiper.tasks.families import SECTIONS

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = [REPOSITORY / folder for folder in ("agent_system", "recipe", "verl_plugins")]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_shipped_configuration_can_be_run(profile, environment):
    config = composed(profile=profile, environment=environment)
    check(config)
    settings = HiPERSettings.from_config(config)
    assert settings.estimator.name == "hae" and settings.num_heads == 3


def test_every_profile_is_offered():
    assert set(OFFERED_PROFILES) == set(PROFILES)


def test_the_gpu_profile_is_the_papers():
    """The table of hyper-parameters in arXiv 2602.16165."""
    config = composed(profile="gpu")
    settings = HiPERSettings.from_config(config)
    assert settings.estimator.hae == HAEConfig(gamma=1.0, lam_turn=1.0, lam_seg=0.95, switch_advantage="segment_return")
    assert settings.estimator.shaping == ShapingConfig(
        invalid_action_penalty_coef=0.1, keep_penalty=-0.3, keep_consistency_penalty=-0.3
    )
    assert settings.estimator.whiten and settings.updates_per_step is None
    expected = {
        "actor_rollout_ref.model.path": "Qwen/Qwen2.5-1.5B-Instruct",
        "actor_rollout_ref.actor.optim.lr": 1e-6,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 256,
        "actor_rollout_ref.actor.ppo_epochs": 1,
        "actor_rollout_ref.actor.clip_ratio": 0.2,
        "actor_rollout_ref.actor.kl_loss_coef": 0.01,
        "actor_rollout_ref.actor.kl_loss_type": "low_var_kl+",  # the paper's low_var_kl, with a gradient at its clamp
        "actor_rollout_ref.actor.entropy_coeff": 0.001,
        "actor_rollout_ref.rollout.temperature": 1.0,
        "actor_rollout_ref.rollout.val_kwargs.temperature": 0.4,
        "critic.optim.lr": 1e-5,
        "critic.cliprange_value": 0.5,
        "data.train_batch_size": 128,
        "data.max_prompt_length": 2048,
        "data.max_response_length": 512,
        "env.max_steps": 50,
        "env.history_length": 2,
        "env.val_tasks": 128,
        "env.rollout.n": 1,
        "trainer.total_training_steps": 150,
    }
    assert {key: OmegaConf.select(config, key) for key in expected} == expected


def test_settings_follow_the_keys():
    config = composed(
        "algorithm.gamma=0.9",
        "algorithm.lam=0.8",
        "algorithm.inadmissible_penalty=-0.6",
        "algorithm.hae.lam_seg=0.7",
        "algorithm.hae.switch_advantage=termination",
        "algorithm.hae.bootstrap_truncated=True",
        "algorithm.hae.norm_adv=False",
        "algorithm.hae.regularize_copies=True",
        "algorithm.hae.random_signs=True",
        "algorithm.hae.keep_penalty=-3.5",
        "algorithm.hae.keep_penalty_mode=normalized",
        "algorithm.hae.keep_consistency_penalty=-0.2",
        "algorithm.hae.keep_consistency_requires_both=False",
        "algorithm.hae.penalty_credit=switch",
        "algorithm.hae.switch_cost=0.6",
        "algorithm.norm_adv_by_std_in_grpo=False",
        "algorithm.gigpo.step_weight=0.25",
        "actor_rollout_ref.actor.invalid_action_penalty_coef=0.4",
        "critic.use_two_heads_critic=True",
        "critic.use_three_heads_critic=False",
        "critic.high_value_coef=2",
        "critic.term_value_coef=3",
        "algorithm.updates_per_step=7",
        "trainer.poll_interval=0.5",
        "trainer.max_actor_ckpt_to_keep=5",
        "trainer.save_best=true",
        "trainer.on_full_disk=continue",
    )
    assert HiPERSettings.from_config(config) == HiPERSettings(
        estimator=EstimatorConfig(
            name="hae",
            hae=HAEConfig(0.9, 0.8, 0.7, "termination", True),
            shaping=ShapingConfig(0.4, -0.6, -3.5, "normalized", -0.2, False, "switch", 0.6),
            whiten=False,
            divide_by_std=False,
            step_weight=0.25,
        ),
        regularize_copies=True,
        random_signs=True,
        num_heads=2,
        value_coefficients=(2, 1.0, 3),
        updates_per_step=7,
        poll_interval=0.5,
        checkpoints=CheckpointSettings(keep=5, save_best=True, stop_when_full=False),
    )
    config.actor_rollout_ref.actor.use_invalid_action_penalty = False
    assert HiPERSettings.from_config(config).estimator.shaping.invalid_action_penalty_coef == 0.0


PRESETS_SET = {
    "custom": (3, "segment_return", "turn"),
    "released": (3, "segment_return", "turn"),
    "paper": (2, "termination", "turn"),
    "living": (3, "segment_return", "switch"),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_what_it_says_and_can_be_run(preset):
    config = composed(preset=preset)
    check(config)
    settings = HiPERSettings.from_config(config)
    heads, switch_advantage, penalty_credit = PRESETS_SET[preset]
    assert settings.num_heads == heads and settings.estimator.hae.switch_advantage == switch_advantage
    assert settings.estimator.shaping.penalty_credit == penalty_credit
    assert (settings.estimator.shaping.switch_cost > 0) is (preset == "living")


def test_every_preset_is_offered():
    assert {path.stem for path in (CONFIG_FOLDER / "algorithm" / "hae").glob("*.yaml")} == set(PRESETS)


def test_only_hae_charges_for_keeping_and_switching():
    charges = ("algorithm.hae.switch_cost=1", "algorithm.hae.keep_penalty=-1")
    config = composed("algorithm.adv_estimator=turn_gae", *charges)
    assert shaping_config(config) == ShapingConfig(0.1, inadmissible_penalty=-0.5)


@pytest.mark.parametrize("estimator", ["turn_gae", "gae"])
def test_a_critic_with_one_head_has_one_loss(estimator):
    """A weight of the planner's loss must not stop it."""
    config = composed(f"algorithm.adv_estimator={estimator}", "critic.high_value_coef=0")
    assert HiPERSettings.from_config(config).value_coefficients == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("estimator", "heads"), [("hae", 3), ("turn_gae", 1), ("gae", 1), ("grpo", 0), ("rloo", 0), ("gigpo", 0)]
)
def test_a_critic_is_started_where_values_are_read(estimator, heads):
    config = composed(f"algorithm.adv_estimator={estimator}", "actor_rollout_ref.model.path=somewhere")
    assert number_of_heads(config) == heads
    left = verl_config(config)
    assert left.critic.enable is (heads > 0) and left.critic.model.override_config.num_value_heads == heads


def test_verl_sees_none_of_the_keys_it_would_refuse():
    config = composed("actor_rollout_ref.model.path=somewhere")
    left = verl_config(config)
    for key in OWN_KEYS:
        section, name = key.rsplit(".", 1)
        assert name in OmegaConf.select(config, section) and name not in OmegaConf.select(left, section)
    assert left.critic.enable is True
    assert left.critic.model.override_config.num_value_heads == 3
    assert left.critic.model.path == "somewhere"


# ---------------------------------------------------------------------------------------------------------------------
# Defect 6 of the released code: configuration keys without a reader.


def keys_read_in_yaml() -> set[str]:
    text = "".join(path.read_text(encoding="utf-8") for path in CONFIG_FOLDER.rglob("*.yaml"))
    return set(re.findall(r"\$\{([\w.]+)\}", text))


def test_defect_6_every_key_has_a_reader():
    """keep_penalty_skip_first, switch_rate_floor and others of the released configuration had no reader."""
    keys = own_keys()
    expected = {"run_dir", "algorithm.updates_per_step", "algorithm.hae.keep_penalty", "env.alfworld.generated.seed"}
    assert keys >= expected | {"trainer.poll_interval", "trainer.episodes_every", "trainer.allow_padded_vocabulary"}
    assert keys >= {"warm_start.seed", "critic.term_value_coef", "env.pool.timeout_s", "env.webshop.source"}
    sections = {f"env.{name}.*" for name in SECTIONS}  # read as a whole; test_families.py looks into them
    assert unread(keys, keys_read_in(SOURCE) | keys_read_in_yaml() | sections) == []


def test_a_key_without_a_reader_would_be_found():
    source = """
def g(settings: WarmStartSettings, other: Section):
    return settings.seed, other.steps, dict(**settings.model.model_dump())

def f(config, other):
    env = config.env
    algorithm, critic = config.algorithm, self.config.critic
    hae = algorithm.hae
    config.env.written = 1
    g(env.seed, hae.lam_seg, critic.coef, other.dead, **env.pool)
"""
    read = keys_read(source)
    keys = ["env.seed", "env.pool.size", "algorithm.hae.lam_seg", "critic.coef", "warm_start.seed"]
    keys.append("warm_start.model.heads")
    assert unread(keys, read) == []
    dead = [
        "algorithm.hae.keep_penalty_skip_first",
        "env.dead",
        "env.poolish",
        "env.written",
        "seed",
        "warm_start.steps",
    ]
    assert unread([*keys, *dead], read) == dead
    assert unread(["algorithm.hae.keep_penalty_skip_first"], keys_read_in(SOURCE)) != []
