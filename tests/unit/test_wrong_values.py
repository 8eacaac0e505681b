# SPDX-License-Identifier: Apache-2.0
"""Wrong values for every key: the door refuses each of them, or what reads the key can use the value."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from made_config import check, composed, own_keys, reference
from omegaconf import OmegaConf, open_dict
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.tracking import Tracking

from agent_system.environments.pool import plan_pool
from agent_system.errors import ConfigError
from agent_system.rollout.agent_loop import EpisodeSettings
from recipe.hiper.cold_start.model import ModelSpec
from recipe.hiper.cold_start.train import TrainSpec
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.configuration.schema_verl import Logger
from recipe.hiper.configuration.section import choices, section_fields
from recipe.hiper.configuration.settings import HiPERSettings, episodes_at_once, verl_config
from recipe.hiper.estimators.registry import ESTIMATORS
from recipe.hiper.tasks.families import SECTIONS

WHOLE_OR_NOTHING = {
    *("env.pool.num_workers", "env.pool.envs_per_worker", "algorithm.updates_per_step"),
    *("warm_start.episodes", "warm_start.steps", "warm_start.batch"),
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes",
    *(f"warm_start.model.{size}" for size in ("hidden", "layers", "heads", "intermediate")),
    *("trainer.n_gpus_per_node", "trainer.max_actor_ckpt_to_keep", "trainer.max_critic_ckpt_to_keep"),
    *("data.val_batch_size", "actor_rollout_ref.rollout.max_model_len"),
    *(f"{role}.ppo_micro_batch_size_per_gpu" for role in ("actor_rollout_ref.actor", "critic")),
    *(f"{role}.data_loader_seed" for role in ("actor_rollout_ref.actor", "critic")),
}
"""Keys that hold an integer or null."""
NUMBER_OR_NOTHING = {"warm_start.lr", "actor_rollout_ref.rollout.gpu_memory_utilization"}
SWITCH_OR_NOTHING = {"critic.use_three_heads_critic", "critic.use_two_heads_critic", "critic.enable"}
TEXT = {
    *("run_dir", "env.name", "env.env_name", "env.failure_log", "trainer.default_local_dir"),
    *("data.train_files", "data.val_files", "trainer.resume_from_path"),
}
"""Keys that hold any text."""
TEXT_OR_NOTHING = {
    *("env.pool_name", "actor_rollout_ref.model.path", "critic.model.path", "warm_start.base"),
    "env.system_prompt",
    *(f"{role}.model.lora_adapter_path" for role in ("actor_rollout_ref", "critic")),
    *("env.alfworld.data_dir", "env.alfworld.generated.dir", "env.webshop.data_dir", "env.webshop.source"),
}
MAY_BE_EMPTY = {"env.system_prompt"}
LIST_OR_NOTHING = {"env.alfworld.generated.receptacles", "env.alfworld.generated.task_types"}
MAY_BE_NEGATIVE = {
    *("algorithm.inadmissible_penalty", "algorithm.hae.keep_penalty", "algorithm.hae.keep_consistency_penalty"),
    *("trainer.save_freq", "trainer.test_freq", "actor_rollout_ref.actor.entropy_coeff"),
    *("env.alfworld.generated.seed", "env.webshop.generated.seed", "env.webshop.early_terminate_penalty"),
    *(f"{role}.optim.lr_warmup_steps" for role in ("actor_rollout_ref.actor", "critic")),
}
MAY_BE_ZERO = MAY_BE_NEGATIVE | {
    *("env.seed", "env.history_length", "env.fault_retries", "env.resources_per_worker.num_cpus", "warm_start.seed"),
    *("trainer.critic_warmup", "trainer.episodes_every", "data.dataloader_num_workers"),
    *("algorithm.gamma", "algorithm.lam", "algorithm.gigpo.step_weight"),
    *(f"algorithm.hae.{name}" for name in ("lam_seg", "lam_boundary", "switch_cost")),
    *("critic.high_value_coef", "critic.term_value_coef"),
    *(f"actor_rollout_ref.actor.{name}" for name in ("clip_ratio", "kl_loss_coef", "invalid_action_penalty_coef")),
    *(f"{role}.data_loader_seed" for role in ("actor_rollout_ref.actor", "critic")),
    *(
        f"{role}.optim.{name}"
        for role in ("actor_rollout_ref.actor", "critic")
        for name in ("lr", "weight_decay", "lr_warmup_steps_ratio")
    ),
    *("actor_rollout_ref.model.lora_rank", "critic.model.lora_rank", "warm_start.lora_rank"),
    *("warm_start.report_tasks", "env.textcraft.distractors"),
    *("env.alfworld.generated.valid_seen", "env.alfworld.generated.valid_unseen"),
    "actor_rollout_ref.rollout.val_kwargs.temperature",
}
AT_MOST_ONE = {
    *("algorithm.gamma", "algorithm.lam", "algorithm.hae.lam_seg", "algorithm.hae.lam_boundary"),
    *(f"{role}.optim.lr_warmup_steps_ratio" for role in ("actor_rollout_ref.actor", "critic")),
    *("actor_rollout_ref.rollout.top_p", "actor_rollout_ref.rollout.val_kwargs.top_p"),
    "actor_rollout_ref.rollout.gpu_memory_utilization",
    "actor_rollout_ref.rollout.pipeline_model_parallel_size",
}
AT_MOST_ZERO = {
    *("algorithm.inadmissible_penalty", "algorithm.hae.keep_penalty", "algorithm.hae.keep_consistency_penalty"),
    "env.webshop.early_terminate_penalty",
}
AT_LEAST_100 = {"env.webshop.generated.products"}
SECTION = {"env.kwargs", "data.apply_chat_template_kwargs"}
LISTS = {"trainer.logger"}
LISTS_OF_DEPTHS = {"env.textcraft.depths"}

VALUES = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, None, True, False, "", "many", 0, 1, -1, 2, 0.5, 1.5, -0.5, -3]),
    st.sampled_from([[], [1], ["many"], {}, {"a": 1}, "1", "0.5", "true"]),
    st.integers(-100, 100),
    st.floats(-10, 10),
    st.text("abc ", max_size=4),
)

DRAW_ONLY = (Phase.explicit, Phase.generate)
"""No shrinking: an example names the keys, and one check takes half a second."""


FAMILY_KEYS = {
    environment: sorted(key for key, _ in section_fields(section, f"env.{environment}"))
    for environment, section in SECTIONS.items()
}
"""The keys of each family of environments."""


def all_keys(environment: str) -> list[str]:
    """Every declared key, and every key that our files add to verl's tree, with this environment."""
    keys = {key for key, _ in section_fields(RunSettings)} - {"family"} | own_keys()
    others = {key for name in SECTIONS for key in keys if key.startswith(f"env.{name}.")}
    return sorted(keys - others | set(FAMILY_KEYS[environment]))


def usual(key: str) -> Any:
    environment = next((name for name in SECTIONS if key.startswith(f"env.{name}.")), "alfworld")
    return OmegaConf.select(reference(environment=environment), key)


def may_be_legal(key: str, value: Any) -> bool:
    """Whether a reader of the key may be able to use the value, by what the key is for."""
    if key in SECTION:
        return isinstance(value, dict)
    if key in LISTS:
        return value == []
    if key in LISTS_OF_DEPTHS:
        return value == [1]  # the only one of VALUES
    if key in LIST_OR_NOTHING:
        return value is None
    if isinstance(value, list | dict):
        return False
    if value is None:
        return key in WHOLE_OR_NOTHING | NUMBER_OR_NOTHING | SWITCH_OR_NOTHING | TEXT_OR_NOTHING
    if key in SWITCH_OR_NOTHING or isinstance(usual(key), bool):
        return isinstance(value, bool)
    if key in TEXT | TEXT_OR_NOTHING:
        return isinstance(value, str) and (value != "" or key in MAY_BE_EMPTY)
    if isinstance(usual(key), str) or isinstance(value, bool | str):
        return False
    is_whole = key in WHOLE_OR_NOTHING or isinstance(usual(key), int)
    if not math.isfinite(value) or (is_whole and not isinstance(value, int) and key not in WRITTEN_AS_WHOLE):
        return False
    if (value < 0 and key not in MAY_BE_NEGATIVE) or (value == 0 and key not in MAY_BE_ZERO):
        return False
    if key in AT_LEAST_100 and value < 100:
        return False
    return not ((value > 1 and key in AT_MOST_ONE) or (value > 0 and key in AT_MOST_ZERO))


WRITTEN_AS_WHOLE = {"env.pool.timeout_s", "actor_rollout_ref.rollout.top_p"}
"""Numbers that the files happen to write without a fraction."""


def with_values(values: dict[str, Any], environment: str = "alfworld"):
    """A copy of the CPU profile with these values."""
    config = deepcopy(reference(environment=environment))
    for key, value in values.items():
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    return config


@pytest.mark.parametrize("environment", SECTIONS)
@given(data=st.data())
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck), phases=DRAW_ONLY)
def test_every_wrong_value_is_refused(environment, data):
    """All keys are wrong at once, and each has a line."""
    values = {
        key: data.draw(VALUES.filter(lambda value, k=key: not may_be_legal(k, value)), key)
        for key in all_keys(environment)
    }
    with pytest.raises(ConfigError) as refused:
        check(with_values(values, environment))
    lines = [line.removeprefix("  - ") for line in str(refused.value).splitlines()[1:]]
    reported = {line.split("=")[0].split(":")[0] for line in lines}
    assert set(values) - reported == set()
    assert all("Try: " in line for line in lines)


def readers_accept(config) -> None:
    """What reads the configuration later, as far as it needs no GPU, Ray or model."""
    hiper = HiPERSettings.from_config(config)
    assert hiper.estimator.name in ESTIMATORS
    left = verl_config(config)
    EpisodeSettings.from_config(left)
    env = config.env
    sizes = plan_pool(episodes_at_once(config), 1e6, env.resources_per_worker.num_cpus, *list(env.pool.values())[:2])
    assert sizes.num_workers >= 1
    ModelSpec(**{name: value for name, value in config.warm_start.model.items() if value is not None})
    TrainSpec(**{} if config.warm_start.steps is None else {"steps": config.warm_start.steps})
    with open_dict(left):
        left.critic.pop("model")  # its dataclass reads the folder of the model
    for section in (left.critic, left.actor_rollout_ref.actor, left.actor_rollout_ref.rollout):
        omega_conf_to_dataclass(section)


@pytest.mark.parametrize("environment", SECTIONS)
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), phases=DRAW_ONLY)
def test_what_passes_can_be_read(environment, data):
    """One key has a value that may be legal: a rule that concerns several keys refuses it, or its readers take it."""
    keys = all_keys(environment) if environment == "alfworld" else FAMILY_KEYS[environment]
    key = data.draw(st.sampled_from(keys))
    value = data.draw(VALUES.filter(lambda value: may_be_legal(key, value) or isinstance(usual(key), str)), key)
    config = with_values({key: value}, environment)
    try:
        check(config)
    except ConfigError as error:
        assert key in str(error)
    else:
        assert may_be_legal(key, value), "the door is open to a value that nothing can use"
        readers_accept(config)


def test_the_shipped_configuration_can_be_read():
    readers_accept(composed())


def test_the_tables_name_keys_that_exist():
    tables = (
        WHOLE_OR_NOTHING,
        NUMBER_OR_NOTHING,
        SWITCH_OR_NOTHING,
        TEXT,
        TEXT_OR_NOTHING,
        MAY_BE_ZERO,
        AT_MOST_ONE,
        SECTION,
        LISTS,
        LISTS_OF_DEPTHS,
    )
    named = set().union(*tables, AT_MOST_ZERO, WRITTEN_AS_WHOLE, LIST_OR_NOTHING, AT_LEAST_100, MAY_BE_EMPTY)
    assert named - {key for environment in SECTIONS for key in all_keys(environment)} == set()


def test_the_loggers_are_verls():
    assert choices(Logger) == tuple(Tracking.supported_backend)
