# SPDX-License-Identifier: Apache-2.0
"""Everything that can be known to be wrong before anything starts, found together and reported together."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agent_system.errors import ConfigError
from agent_system.rollout.environment_registry import World, agent_kind
from recipe.hiper.configuration.settings import episodes_at_once, hae_config, number_of_heads, shaping_config
from recipe.hiper.estimators.registry import ESTIMATORS, OF_GROUPS

OPEN_SECTIONS = (
    "ray_kwargs.ray_init",
    "override_config",
    "engine_kwargs",
    "apply_chat_template_kwargs",
    "mm_processor_kwargs",
    "mixed_precision",
    "override_optimizer_config",
    "wrap_policy",
    "sampler_kwargs",
    "runtime_env",
)
"""Ends of the names of sections that take any key, because a library behind verl reads them."""


def flat_items(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a configuration as a dotted key and its value."""
    if isinstance(config, dict) and config:
        for name, value in config.items():
            yield from flat_items(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, config


def flat_keys(config: Any) -> Iterator[str]:
    """Every leaf of a configuration as a dotted key."""
    return (key for key, _ in flat_items(config))


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def unknown_keys(config: DictConfig, reference: DictConfig) -> list[str]:
    """A message for every key that was added with `+` although nothing reads it."""
    known = set(flat_keys(OmegaConf.to_container(reference, resolve=False)))
    sections = {prefix for key in known for prefix in _prefixes(key)}
    ends = tuple(f".{section}" for section in OPEN_SECTIONS)
    problems = []
    for key in flat_keys(OmegaConf.to_container(config, resolve=False)):
        if key in known:
            continue
        is_open = any(f".{parent}".endswith(ends) for parent in _prefixes(key)[:-1] if parent in sections)
        is_filled = any(other.startswith(key + ".") for other in known) or any(key.startswith(o + ".") for o in known)
        if not is_open and not is_filled:
            problems.append(f"{key}: no such key, nothing would read it.{suggestion(key, known)}")
    return problems


def wrong_types(config: DictConfig, reference: DictConfig) -> list[str]:
    """A message for every key that holds text, or nothing, where the profile has a number or true/false."""
    usual = dict(flat_items(OmegaConf.to_container(reference, resolve=False)))
    problems = []
    for key, given in flat_items(OmegaConf.to_container(config, resolve=False)):
        if key not in usual or given == usual[key]:
            continue
        value, expected = OmegaConf.select(config, key), OmegaConf.select(reference, key)
        is_switch = isinstance(expected, bool)
        if not isinstance(expected, bool | int | float) or (is_switch and isinstance(value, bool)):
            continue
        ours = ("env.", "algorithm.", "warm_start.", "data.", "trainer.")
        may_be_empty = not key.startswith(ours) or key == "algorithm.updates_per_step"
        if is_switch or isinstance(value, bool | str) or (value is None and not may_be_empty):
            kind = "true or false" if is_switch else "a number"
            problems.append(f"{key}={value}: {kind} is expected, for example {key}={expected}")
    return problems


def suggestion(key: str, known: Iterable[str]) -> str:
    """ " Did you mean ...?" with the most similar known keys, or nothing."""
    known = list(known)
    close = difflib.get_close_matches(key, known, n=2, cutoff=0.75)
    close += [other for other in known if other.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]][:2]
    names = list(dict.fromkeys(close))[:3]
    return f" Did you mean {' or '.join(names)}?" if names else ""


Check = Callable[[DictConfig], Iterable[str]]
"""Yields a message for every problem that it finds."""


def check_config(config: DictConfig, reference: DictConfig, checks: Iterable[Check] = ()) -> None:
    """Check the whole configuration.

    Args:
        config: what is to be run.
        reference: the same profile without the user's overrides, for the set of known keys.
        checks: what other packages know about their own settings.

    Raises:
        ConfigError: one message with every problem, each with the override that fixes it.
    """
    problems = unknown_keys(config, reference)
    if mistyped := wrong_types(config, reference):  # nothing can be compared with a value of the wrong type
        raise_all(problems + mistyped)
    problems += _environment(config)
    problems += _estimator(config)
    problems += _batches(config)
    problems += _seeded_sampling(config)
    problems += _packed_attention(config)
    problems += _checkpoints(config)
    for check in checks:
        problems += check(config)
    raise_all(problems)


def raise_all(problems: list[str]) -> None:
    """Raise one ConfigError for all problems, if there are any."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"The configuration cannot be run ({count}):\n" + "\n".join(f"  - {p}" for p in problems))


def _environment(config: DictConfig) -> Iterator[str]:
    env = config.env
    try:
        kind = agent_kind(env.env_name)
    except ConfigError as error:
        yield str(error)
    else:
        if kind.world is not World.OWN and kind.world.value not in env:
            yield (
                f"env.env_name={env.env_name} belongs to another environment than the one chosen with env=. "
                f"env={kind.world.value}"
            )
        if config.algorithm.adv_estimator == "hae" and not kind.full.has_subgoal:
            yield (
                f"algorithm.adv_estimator=hae needs replies with sub-goals, but env.env_name={env.env_name} is flat. "
                f"env.env_name={'WebshopOptions' if 'webshop' in env else 'alfworld/AlfredTWEnvOptions'}, or "
                "algorithm.adv_estimator=turn_gae"
            )
        if env.short_keep and not kind.full.has_subgoal:
            yield (
                f"env.short_keep=true says how a sub-goal is kept, but env.env_name={env.env_name} is flat. "
                "env.short_keep=false"
            )
    if env.prompt_style not in ("full", "compact"):
        yield f"env.prompt_style={env.prompt_style} is not full or compact. env.prompt_style=full"
    for name, least in (("max_steps", 1), ("history_length", 0), ("val_tasks", 1), ("fault_retries", 0)):
        if env[name] < least:
            yield f"env.{name}={env[name]}: at least {least} is needed. env.{name}={max(least, 1)}"
    if env.rollout.n < 1:
        yield f"env.rollout.n={env.rollout.n}: at least one episode per task is needed. env.rollout.n=1"
    elif config.actor_rollout_ref.rollout.n != env.rollout.n:
        yield (
            f"actor_rollout_ref.rollout.n={config.actor_rollout_ref.rollout.n} follows env.rollout.n={env.rollout.n} "
            f"and is not set by itself. Remove it, or env.rollout.n={config.actor_rollout_ref.rollout.n}"
        )
    workers, places = env.pool.num_workers, env.pool.envs_per_worker
    episodes = episodes_at_once(config)
    if env.lockstep and places and (workers or 1) * places < episodes:  # null may come to 1
        yield (
            f"env.lockstep=true plays all {episodes} episodes at once, and env.pool.num_workers={workers} times "
            f"env.pool.envs_per_worker={places} may have no room for them. env.pool.envs_per_worker=null"
        )
    if "webshop" in env:
        return
    if env.alfworld.games not in ("auto", "published", "generated"):
        yield f"env.alfworld.games={env.alfworld.games} is not auto, published or generated. env.alfworld.games=auto"
    elif env.alfworld.games == "generated" and env.alfworld.data_dir:
        yield (
            f"env.alfworld.data_dir={env.alfworld.data_dir} would not be read: env.alfworld.games=generated. "
            "env.alfworld.games=auto, or env.alfworld.data_dir=null"
        )


def _estimator(config: DictConfig) -> Iterator[str]:
    algorithm = config.algorithm
    estimator = algorithm.adv_estimator
    if estimator not in ESTIMATORS:
        yield f"algorithm.adv_estimator={estimator} is not one of {', '.join(ESTIMATORS)}. algorithm.adv_estimator=hae"
        return
    for read in (hae_config, shaping_config):
        try:
            read(config)
        except ValueError as error:
            yield str(error)
    if algorithm.use_kl_in_reward and estimator != "gae":
        yield (
            f"algorithm.use_kl_in_reward=True has no meaning for turn-level rewards under {estimator}. "
            "algorithm.use_kl_in_reward=False actor_rollout_ref.actor.use_kl_loss=True"
        )
    correction = algorithm.get("rollout_correction") or {}
    if estimator != "gae" and (correction.get("rollout_is") or correction.get("rollout_rs")):
        yield (
            f"algorithm.rollout_correction is not applied under {estimator} (vLLM's policy is the trainer's policy). "
            "algorithm.rollout_correction.rollout_is=null algorithm.rollout_correction.rollout_rs=null"
        )
    if algorithm.use_pf_ppo:
        yield "algorithm.use_pf_ppo=True is not supported here. algorithm.use_pf_ppo=False"
    for key in ("algorithm.gigpo.step_weight", "critic.high_value_coef", "critic.term_value_coef"):
        if not 0 <= OmegaConf.select(config, key) < float("inf"):
            yield f"{key}={OmegaConf.select(config, key)}: a weight is a number from 0 on. {key}=1"
    yield from _groups(config)
    yield from _critic(config)
    for key in ("actor_rollout_ref.actor.strategy", "critic.strategy"):
        if OmegaConf.select(config, key) != "fsdp2":
            yield f"{key}={OmegaConf.select(config, key)} is not supported here. {key}=fsdp2"
    if config.trainer.v1.trainer_mode != "sync" or not config.trainer.use_v1:
        yield "only verl's synchronous V1 trainer is supported. trainer.use_v1=True trainer.v1.trainer_mode=sync"


def _groups(config: DictConfig) -> Iterator[str]:
    estimator, n = config.algorithm.adv_estimator, config.env.rollout.n
    if estimator in OF_GROUPS and n < 2:
        yield (
            f"algorithm.adv_estimator={estimator} compares the episodes of a task with each other, and "
            f"env.rollout.n={n} plays one. env.rollout.n=8 (with data.train_batch_size={config.data.train_batch_size} "
            f"that is {8 * config.data.train_batch_size} episodes a step), or algorithm.adv_estimator=turn_gae"
        )
    groups = config.algorithm.filter_groups
    if not groups.enable:
        return
    if n < 2:
        yield (
            f"algorithm.filter_groups.enable=True resamples tasks whose episodes all end alike, and env.rollout.n={n} "
            "plays one episode of each. env.rollout.n=8, or algorithm.filter_groups.enable=False"
        )
    if groups.metric != "reward":
        yield (
            f"algorithm.filter_groups.metric={groups.metric}: episodes are compared by their reward. "
            "algorithm.filter_groups.metric=reward"
        )
    if groups.max_num_gen_batches < 1:
        yield (
            f"algorithm.filter_groups.max_num_gen_batches={groups.max_num_gen_batches}: without a limit a step never "
            "ends once every task is always won, or always lost. algorithm.filter_groups.max_num_gen_batches=10"
        )


def _critic(config: DictConfig) -> Iterator[str]:
    estimator, critic = config.algorithm.adv_estimator, config.critic
    heads = {f"critic.use_{name}_heads_critic": critic[f"use_{name}_heads_critic"] for name in ("three", "two")}
    if odd := [key for key, value in heads.items() if value is not None and not isinstance(value, bool)]:
        yield f"{odd[0]}={critic[odd[0].rsplit('.', 1)[-1]]}: true, false or null is expected. {odd[0]}=null"
        return
    asked = [key for key, value in heads.items() if value]
    if estimator != "hae" and asked:
        read = "starts no critic" if estimator in OF_GROUPS else "reads one value head"
        yield f"{asked[0]}=True belongs to hae, and {estimator} {read}. {asked[0]}=null"
    if estimator == "hae" and (number_of_heads(config) < 2 or len(asked) == 2):
        values = " and ".join(f"{key}={value}" for key, value in heads.items())
        yield (
            f"hae needs either three or two value heads, got {values}. "
            "critic.use_three_heads_critic=True critic.use_two_heads_critic=False"
        )
    needed = estimator not in OF_GROUPS
    if critic.enable is not None and critic.enable != needed:
        does = "estimates advantages from values"
        if not needed:
            does = "reads no values, so a critic would be trained for nothing"
        yield f"critic.enable={critic.enable}: {estimator} {does}. Remove it, or critic.enable=null"


def _batches(config: DictConfig) -> Iterator[str]:
    actor, data, trainer = config.actor_rollout_ref.actor, config.data, config.trainer
    for key in ("n_gpus_per_node", "nnodes"):
        if trainer[key] < 1:
            yield f"trainer.{key}={trainer[key]}: at least one training process is needed. trainer.{key}=1"
    processes = max(1, trainer.n_gpus_per_node) * max(1, trainer.nnodes)
    episodes = data.train_batch_size * config.env.rollout.n
    if data.train_batch_size < 1:
        yield (
            f"data.train_batch_size={data.train_batch_size}: at least one task per step is needed. "
            "data.train_batch_size=64"
        )
    elif episodes % processes:
        yield (
            f"data.train_batch_size * env.rollout.n = {episodes} episodes cannot be shared out to {processes} training "
            f"processes. data.train_batch_size={max(1, data.train_batch_size // processes) * processes}"
        )
    at_once = data.val_batch_size
    if at_once is not None and (not isinstance(at_once, int) or at_once < config.env.val_tasks):
        yield (
            f"data.val_batch_size={at_once}: the env.val_tasks={config.env.val_tasks} held-out tasks are "
            "played at once. data.val_batch_size=null"
        )
    updates = config.algorithm.updates_per_step
    if updates is not None and (not isinstance(updates, int) or updates < 1):
        yield f"algorithm.updates_per_step={updates}: a whole number from 1 on, or null. algorithm.updates_per_step=4"
    if updates is None:
        for key in ("actor_rollout_ref.actor.ppo_mini_batch_size", "critic.ppo_mini_batch_size"):
            size = OmegaConf.select(config, key)
            if (size * config.env.rollout.n) % processes:
                yield (
                    f"{key}={size} rows cannot be shared out to {processes} training processes. "
                    f"{key}={max(1, size // processes) * processes}"
                )
    for key in ("warm_start.steps", "warm_start.episodes"):
        number = OmegaConf.select(config, key)
        if number is not None and (not isinstance(number, int) or number < 1):
            yield f"{key}={number}: a whole number from 1 on, or null for the default. {key}=null"
    longest = data.max_prompt_length + data.max_response_length
    for key, dynamic in (
        ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu", actor.use_dynamic_bsz),
        ("critic.ppo_max_token_len_per_gpu", config.critic.use_dynamic_bsz),
    ):
        if dynamic and OmegaConf.select(config, key) < longest:
            yield (
                f"{key}={OmegaConf.select(config, key)} is less than one row may need (data.max_prompt_length + "
                f"data.max_response_length = {longest}). {key}={longest}"
            )
    if trainer.total_training_steps is None or trainer.total_training_steps < 1:
        yield (
            f"trainer.total_training_steps={trainer.total_training_steps}: say how long to train. "
            "trainer.total_training_steps=150"
        )
    elif number_of_heads(config) and trainer.critic_warmup > trainer.total_training_steps:
        yield (
            f"trainer.critic_warmup={trainer.critic_warmup}: the policy is trained from that step on, and the run ends "
            f"with step {trainer.total_training_steps}. trainer.critic_warmup=0"
        )


def _seeded_sampling(config: DictConfig) -> Iterator[str]:
    rollout, data = config.actor_rollout_ref.rollout, config.data
    if config.trainer.device != "cpu":
        return
    if rollout.enable_chunked_prefill and config.env.seeded_sampling:
        yield (
            "actor_rollout_ref.rollout.enable_chunked_prefill=true with env.seeded_sampling=true: on CPU, vLLM fails "
            "at the first prompt that it cuts. Try: actor_rollout_ref.rollout.enable_chunked_prefill=false, or "
            "env.seeded_sampling=false"
        )
    longest = rollout.max_model_len or data.max_prompt_length + data.max_response_length
    if not rollout.enable_chunked_prefill and rollout.max_num_batched_tokens < longest:
        yield (
            f"actor_rollout_ref.rollout.max_num_batched_tokens={rollout.max_num_batched_tokens} is less than a prompt "
            f"and its reply may need ({longest} tokens), and enable_chunked_prefill=false does not cut prompts. "
            f"Try: actor_rollout_ref.rollout.max_num_batched_tokens={longest}"
        )


def _packed_attention(config: DictConfig) -> Iterator[str]:
    for model, roles in (
        ("actor_rollout_ref.model", ("actor_rollout_ref.actor", "actor_rollout_ref.ref")),
        ("critic.model", ("critic",)),
    ):
        settings = OmegaConf.select(config, model)
        attention = f"{model}.override_config.attn_implementation"
        if settings.override_config.get("attn_implementation") != "torch_varlen":
            continue
        if not settings.use_remove_padding:
            yield (
                f"{attention}=torch_varlen is for rows without padding. {attention}=sdpa, or "
                f"{model}.use_remove_padding=True"
            )
        if "verl_plugins.packed" not in (settings.external_lib or ""):
            yield (
                f"{attention}=torch_varlen comes with a module of this repository. "
                f"{model}.external_lib=verl_plugins.packed"
            )
        sections = [f"{role}{section}" for role in roles for section in ("", ".fsdp_config", ".fsdp")]
        for key in (f"{section}.ulysses_sequence_parallel_size" for section in sections):
            if (OmegaConf.select(config, key) or 1) > 1:
                parts = OmegaConf.select(config, key)
                yield (
                    f"{key}={parts} splits rows over GPUs, which verl does with flash-attn only. "
                    f"{key}=1, or {attention}=flash_attention_2 (needs the package flash-attn)"
                )
                break


def _checkpoints(config: DictConfig) -> Iterator[str]:
    for key in ("actor_rollout_ref.actor.checkpoint.async_save", "critic.checkpoint.async_save"):
        if OmegaConf.select(config, key):
            yield (
                f"{key}=True: with FSDP verl then never records which step it saved, and resume_mode=auto silently "
                f"starts again at step 0 (verl#7952). {key}=False"
            )


def check_model(config: DictConfig) -> None:
    """Check the model folder against its tokenizer and the lengths of the run.

    Raises:
        ConfigError: the vocabulary and the tokenizer do not fit, or the model cannot hold prompt and reply.
    """
    from transformers import AutoConfig, AutoTokenizer

    path = config.actor_rollout_ref.model.path
    model, tokenizer = AutoConfig.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    problems = []
    if len(tokenizer) > model.vocab_size:
        problems.append(
            f"actor_rollout_ref.model.path={path}: the tokenizer has {len(tokenizer)} tokens but the model knows "
            f"{model.vocab_size}; the model does not belong to this tokenizer."
        )
    elif len(tokenizer) < model.vocab_size and not config.trainer.allow_padded_vocabulary:
        problems.append(
            f"actor_rollout_ref.model.path={path}: the model's vocabulary ({model.vocab_size}) is longer than the "
            f"tokenizer ({len(tokenizer)}); vLLM never samples the surplus tokens but the trainer counts them, so the "
            "two policies differ. Shrink the embedding, or accept it: trainer.allow_padded_vocabulary=True"
        )
    if not tokenizer.is_fast:
        problems.append(f"actor_rollout_ref.model.path={path}: a fast tokenizer (tokenizer.json) is needed.")
    if not tokenizer.chat_template:
        problems.append(f"actor_rollout_ref.model.path={path}: the tokenizer has no chat template.")
    longest = config.data.max_prompt_length + config.data.max_response_length
    if longest > model.max_position_embeddings:
        problems.append(
            f"data.max_prompt_length + data.max_response_length = {longest} exceeds the model's "
            f"{model.max_position_embeddings} positions. data.max_prompt_length="
            f"{model.max_position_embeddings - config.data.max_response_length}"
        )
    raise_all(problems)


def checkpoint_bytes(model_path: str, with_critic: bool) -> int:
    """Estimated size of one checkpoint: policy, and critic, each with float32 weights and AdamW's two moments.

    The parameters are counted on a model without storage, so a name on the hub is as good as a folder.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_path))
    return model.num_parameters() * 4 * 3 * (2 if with_critic else 1)
