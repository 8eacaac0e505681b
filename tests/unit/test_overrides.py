# SPDX-License-Identifier: Apache-2.0
"""The command line: keys that do not exist, cannot be deleted or are not read, and keys of earlier versions."""

from __future__ import annotations

import re

import pytest
from made_config import composed
from omegaconf import OmegaConf
from typed_remedies import apply_remedy, remedies

from agent_system.errors import ConfigError
from recipe.hiper.configuration.keys import similar_keys
from recipe.hiper.configuration.old_keys import OLD_KEYS, translate_old_keys
from recipe.hiper.configuration.overrides import OF_SOME_ESTIMATORS, check_overrides, reads
from recipe.hiper.estimators.registry import ESTIMATORS


def test_unknown_overrides_are_found_before_hydra_stops_at_the_first():
    with pytest.raises(ConfigError) as refused:
        check_overrides(["profile=cpu", "env.max_step=3", "algorithm.hae.lamseg=1", "env.seed=1", "++env.new=1"])
    message = str(refused.value)
    assert "(2 problems)" in message
    assert "env.max_steps" in message and "algorithm.hae.lam_seg" in message
    with pytest.raises(ConfigError, match="profile=tpu is not one of cpu, gpu"):
        check_overrides(["profile=tpu"])
    check_overrides(["profile=cpu", "env=alfworld", "env.seed=1", "+actor_rollout_ref.model.override_config.x=1"])


@pytest.mark.parametrize("contradiction", ["critic.use_two_heads_critic=False", "algorithm.hae.penalty_credit=switch"])
def test_a_preset_is_not_contradicted(contradiction):
    with pytest.raises(ConfigError, match=f"{contradiction} contradicts algorithm/hae=paper, which sets"):
        check_overrides(["profile=cpu", "algorithm/hae=paper", contradiction])


@pytest.mark.parametrize(
    ("estimator", "unread", "read"),
    [
        ("turn_gae", "algorithm.hae.switch_cost=0.3", "algorithm.hae.norm_adv=false"),
        ("gae", "algorithm.hae.bootstrap_truncated=true", "algorithm.lam=0.9"),
        ("gigpo", "algorithm.hae.keep_penalty=-0.1", "algorithm.hae.random_signs=true"),
    ],
)
def test_what_an_estimator_does_not_read_is_refused(estimator, unread, read):
    chosen = ["profile=cpu", f"algorithm.adv_estimator={estimator}"]
    check_overrides([*chosen, read])
    with pytest.raises(ConfigError, match=rf"{unread}: {estimator} does not read it.*algorithm\.adv_estimator=hae"):
        check_overrides([*chosen, unread])
    check_overrides(["profile=cpu", unread])


def test_the_dials_of_a_preset_can_be_turned():
    check_overrides(["profile=cpu", "algorithm/hae=living", "algorithm.hae.switch_cost=0.05"])
    check_overrides(["profile=cpu", "algorithm/hae=custom", "critic.use_two_heads_critic=True"])
    check_overrides(["profile=cpu", "algorithm/hae=paper", "algorithm.hae.switch_advantage=termination"])


def test_an_unknown_preset_is_named():
    with pytest.raises(ConfigError, match="algorithm/hae=papers is not one of custom, released, paper, living"):
        check_overrides(["profile=cpu", "algorithm/hae=papers"])


@pytest.mark.parametrize(
    ("typed", "part"),
    [
        ("trainer.logger=[tensorboard, wandb", "needs quotes. Try: 'run_dir="),
        ("run_dir=outputs/a(1)", "needs quotes. Try: 'run_dir="),
        ("algorithm.adv_estimator=gae,grpo", "several values would be several runs"),
    ],
)
def test_what_hydra_cannot_read_is_no_traceback(typed, part):
    with pytest.raises(ConfigError, match=re.escape(part)):
        check_overrides(["profile=cpu", typed, "algorithm.hae.switch_cost=0.1"])
    check_overrides(["profile=cpu", 'run_dir="outputs/a (1)"'])


def test_nothing_similar_is_no_suggestion():
    assert similar_keys("zzz.qqq", ["env.max_steps"]) == []


def test_a_misspelt_key_is_suggested_with_its_value():
    with pytest.raises(ConfigError, match=r"no key trainer.total_training_step. Try: trainer.total_training_steps=10$"):
        check_overrides(["trainer.total_training_step=10"])


def test_a_key_of_another_environment():
    with pytest.raises(
        ConfigError, match="env.alfworld.games is a key of env=alfworld, not of env=webshop. Try: leave"
    ):
        check_overrides(["env=webshop", "env.alfworld.games=published"])


UNREAD = {
    "a part of gigpo under grpo": ["algorithm.adv_estimator=grpo", "algorithm.gigpo.step_weight=7"],
    "lambda under grpo": ["algorithm.adv_estimator=grpo", "algorithm.lam=0.3"],
    "discount under rloo": ["algorithm.adv_estimator=rloo", "algorithm.gamma=0.3"],
    "deviation under rloo": ["algorithm.adv_estimator=rloo", "algorithm.norm_adv_by_std_in_grpo=false"],
    "deviation under hae": ["algorithm.norm_adv_by_std_in_grpo=false"],
    "deviation under a preset": ["algorithm/hae=paper", "algorithm.norm_adv_by_std_in_grpo=false"],
    "heads under gigpo": ["algorithm.adv_estimator=gigpo", "critic.use_two_heads_critic=true"],
    "value weights under turn_gae": ["algorithm.adv_estimator=turn_gae", "critic.high_value_coef=0"],
    "value weights under gae": ["algorithm.adv_estimator=gae", "critic.term_value_coef=2"],
    "value targets under gae": ["algorithm.adv_estimator=gae", "critic.targets=monte_carlo"],
    "value targets under grpo": ["algorithm.adv_estimator=grpo", "critic.targets=monte_carlo"],
    "a section under grpo": ["algorithm.adv_estimator=grpo", "algorithm.hae={switch_cost:1}"],
    "verl's KL controller under hae": ["algorithm.kl_ctrl.kl_coef=0.5"],
    "a filter that is off": ["algorithm.filter_groups.max_num_gen_batches=3"],
    "a penalty that is off": [
        "actor_rollout_ref.actor.use_invalid_action_penalty=false",
        "actor_rollout_ref.actor.invalid_action_penalty_coef=3",
    ],
    "a small model that is not made": ["actor_rollout_ref.model.path=Qwen/Qwen2.5-0.5B-Instruct", "warm_start.steps=3"],
    "sizes of a pretrained model": ["model=smollm2", "warm_start.model.hidden=64"],
    "steps of hidden states for a critic with a model of its own": ["critic.replay_steps=2"],
    "clipping of values without a model for them": ["critic.backbone=policy", "critic.cliprange_value=2"],
    "a section that is no value": ["critic=null"],
    "a deletion": ["~algorithm.hae.switch_cost"],
    "a deletion with a value": ["~env.max_steps=20"],
    "a deletion of a section": ["~env.pool"],
}


@pytest.mark.parametrize("typed", UNREAD.values(), ids=UNREAD.keys())
def test_what_nothing_reads_is_refused_with_what_to_type(typed):
    with pytest.raises(ConfigError, match=r"\(1 problem\)") as refused:
        check_overrides(["profile=cpu", *typed])
    problem = str(refused.value).partition("  - ")[2]
    assert problem.startswith(typed[-1])
    alternatives = remedies(problem)
    assert alternatives
    for alternative in alternatives:
        check_overrides(["profile=cpu", *apply_remedy(typed, alternative)])


def test_what_repeats_the_profile_is_accepted():
    """Scripts pass the same values to every estimator; an override that changes nothing misleads nobody."""
    check_overrides(["profile=cpu", "algorithm.adv_estimator=grpo", "algorithm.lam=0.5", "critic.high_value_coef=1"])
    check_overrides(["profile=cpu", "algorithm.adv_estimator=turn_gae", "critic.use_two_heads_critic=null"])
    with pytest.raises(ConfigError, match="algorithm.lam=0.5: grpo does not read it"):
        check_overrides(["profile=gpu", "algorithm.adv_estimator=grpo", "algorithm.lam=0.5"])


def test_the_filter_is_read_where_it_is_on():
    on = ["algorithm.filter_groups.enable=true", "algorithm.filter_groups.max_num_gen_batches=3"]
    check_overrides(["profile=cpu", "env.rollout.n=8", *on])


def test_every_estimator_says_what_it_reads():
    for profile in ("cpu", "gpu"):
        config = composed(profile=profile)
        unset = {key for key in OF_SOME_ESTIMATORS if OmegaConf.select(config, key) is None}
        assert unset == {"critic.use_three_heads_critic", "critic.use_two_heads_critic"}
    assert reads("hae", "algorithm.hae.switch_cost") and not reads("turn_gae", "algorithm.hae.switch_cost")
    assert all(reads(name, "env.max_steps") for name in ESTIMATORS), "keys outside the table are read by everyone"


def test_a_key_of_a_library_behind_verl_can_be_deleted():
    check_overrides(["profile=cpu", "~actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes"])


@pytest.mark.parametrize("prefix", ["", "+", "++"])
@pytest.mark.parametrize("name", ["param_offload", "optimizer_offload"])
def test_keys_of_the_released_script_are_translated(prefix, name):
    old = f"critic.model.fsdp_config.{name}"
    translated, notices = translate_old_keys(["profile=gpu", f"{prefix}{old}=True", "env.seed=1"])
    assert translated == ["profile=gpu", f"critic.fsdp.{name}=True", "env.seed=1"]
    assert notices == [f"{old} is called critic.fsdp.{name} today: critic.fsdp.{name}=True is used"]
    check_overrides(translated)


def test_keys_of_today_are_not_translated():
    arguments = ["--cfg", "job", "profile=cpu", 'run_dir="critic.model.fsdp_config.param_offload"', "~env.seed"]
    assert translate_old_keys(arguments) == (arguments, [])


def test_old_keys_are_gone_and_new_ones_are_there():
    config = composed(profile="gpu")
    for old, new in OLD_KEYS.items():
        assert OmegaConf.select(config, old) is None and OmegaConf.select(config, new) is not None
