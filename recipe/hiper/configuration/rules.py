# SPDX-License-Identifier: Apache-2.0
"""Rules that concern several keys. Every message says what is wrong, why, and what to type."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from agent_system.errors import ConfigError
from agent_system.rollout.environment_registry import environment_spec, plan_execute_name
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.configuration.section import typed
from recipe.hiper.configuration.settings import chosen_estimator, episodes_at_once, number_of_heads


def rule_problems(settings: RunSettings, environment: str) -> Iterator[str]:
    """A message for every rule that the settings break.

    Args:
        environment: what was chosen with `env=`.
    """
    yield from _environment(settings, environment)
    yield from _pool(settings)
    yield from _rewards(settings)
    yield from _groups(settings)
    yield from _critic(settings)
    yield from _processes(settings)
    yield from _lengths(settings)
    yield from _steps(settings)


def _environment(settings: RunSettings, environment: str) -> Iterator[str]:
    env = settings.env
    try:
        spec = environment_spec(env.env_name)
    except ConfigError as error:
        yield str(error)
        return
    if spec.family is not None and spec.family != environment:
        yield (
            f"env.env_name={env.env_name} belongs to another environment than the one chosen with env=. "
            f"Try: env={spec.family}"
        )
    estimator = chosen_estimator(settings)
    if estimator.is_hierarchical and not spec.full.has_subgoal:
        yield (
            f"algorithm.adv_estimator={estimator.name} needs replies with sub-goals, but env.env_name={env.env_name} "
            f"is flat. Try: env.env_name={plan_execute_name(environment)}, or algorithm.adv_estimator=turn_gae"
        )
    if env.short_keep and not spec.full.has_subgoal:
        yield (
            f"env.short_keep=true changes how a sub-goal is kept, but env.env_name={env.env_name} has no sub-goals. "
            "Try: env.short_keep=false"
        )
    if settings.actor_rollout_ref.rollout.n != env.rollout.n:
        n = settings.actor_rollout_ref.rollout.n
        yield (
            f"actor_rollout_ref.rollout.n={n} follows env.rollout.n={env.rollout.n} and must not be set itself. Try: "
            f"env.rollout.n={n} actor_rollout_ref.rollout.n={n}"
        )


def _pool(settings: RunSettings) -> Iterator[str]:
    pool, episodes = settings.env.pool, episodes_at_once(settings)
    workers, places = pool.num_workers, pool.envs_per_worker
    if settings.env.lockstep and places and (workers or 1) * places < episodes:  # null may become 1
        yield (
            f"env.lockstep=true plays all {episodes} episodes at once, but {workers or 1} processes "
            f"(env.pool.num_workers) with env.pool.envs_per_worker={places} environments may have no room for them. "
            "Try: env.pool.envs_per_worker=null"
        )


def _rewards(settings: RunSettings) -> Iterator[str]:
    algorithm = settings.algorithm
    estimator = algorithm.adv_estimator
    if algorithm.use_kl_in_reward and not chosen_estimator(settings).is_verls_own:
        yield (
            f"algorithm.use_kl_in_reward=true: a KL penalty per token has no meaning for the turn-level rewards of "
            f"{estimator}. Try: algorithm.use_kl_in_reward=false actor_rollout_ref.actor.use_kl_loss=true"
        )
    elif algorithm.use_kl_in_reward and settings.actor_rollout_ref.actor.use_kl_loss:
        yield (
            "algorithm.use_kl_in_reward=true with actor_rollout_ref.actor.use_kl_loss=true counts the KL divergence "
            "twice. Try: algorithm.use_kl_in_reward=false"
        )
    if algorithm.use_pf_ppo:
        yield "algorithm.use_pf_ppo=true is not supported here. Try: algorithm.use_pf_ppo=false"


def _groups(settings: RunSettings) -> Iterator[str]:
    estimator, n = settings.algorithm.adv_estimator, settings.env.rollout.n
    groups = f"env.rollout.n=8 data.train_batch_size={max(1, settings.data.train_batch_size // 8)}"
    if chosen_estimator(settings).needs_groups and n < 2:
        yield (
            f"algorithm.adv_estimator={estimator} compares the episodes of a task with each other, but "
            f"env.rollout.n={n} plays one. Try: {groups} (about as many episodes per step as now), or "
            "algorithm.adv_estimator=turn_gae"
        )
    if settings.algorithm.filter_groups.enable and n < 2:
        yield (
            f"algorithm.filter_groups.enable=true replaces tasks whose episodes all end alike, but env.rollout.n={n} "
            f"plays one episode of each. Try: {groups} (about as many episodes per step as now), or "
            "algorithm.filter_groups.enable=false"
        )


def _critic(settings: RunSettings) -> Iterator[str]:
    estimator, critic = settings.algorithm.adv_estimator, settings.critic
    heads = {
        "critic.use_three_heads_critic": critic.use_three_heads_critic,
        "critic.use_two_heads_critic": critic.use_two_heads_critic,
    }
    chosen = [key for key, value in heads.items() if value]
    entry = chosen_estimator(settings)
    if not entry.chooses_heads and chosen:
        reads = "reads one value head" if entry.has_critic else "has no critic"
        yield f"{chosen[0]}=true belongs to hae, and {estimator} {reads}. Try: {' '.join(f'{k}=null' for k in chosen)}"
    if entry.chooses_heads and (number_of_heads(settings) < 2 or len(chosen) == 2):
        values = " and ".join(f"{key}={str(value).lower()}" for key, value in heads.items())
        yield (
            f"{estimator} needs either three or two value heads, but {values}. Try: critic.use_three_heads_critic=true "
            "critic.use_two_heads_critic=false"
        )
    if critic.backbone == "policy" and entry.has_critic and not entry.has_turn_values:
        yield (
            f"critic.backbone=policy reads values of turns, and {estimator} needs one of every token. "
            "Try: critic.backbone=own"
        )
    needed = entry.has_critic
    if critic.enable is not None and critic.enable != needed:
        does = "estimates advantages from values"
        if not needed:
            does = "reads no values, so that a critic would be trained for nothing"
        yield f"critic.enable={str(critic.enable).lower()}: {estimator} {does}. Try: critic.enable=null"


def _processes(settings: RunSettings) -> Iterator[str]:
    """The rows of a step are divided among the training processes. Not checked before the GPUs are counted."""
    data, trainer, actor = settings.data, settings.trainer, settings.actor_rollout_ref.actor
    if trainer.n_gpus_per_node is None:
        return
    processes = trainer.n_gpus_per_node * trainer.nnodes
    of_trainer = f"{processes} training processes (trainer.n_gpus_per_node times trainer.nnodes)"
    episodes = data.train_batch_size * settings.env.rollout.n
    if episodes % processes:
        size = max(1, data.train_batch_size // processes) * processes
        yield (
            f"data.train_batch_size={data.train_batch_size} times env.rollout.n={settings.env.rollout.n} is {episodes} "
            f"episodes, which cannot be divided among {of_trainer}. Try: "
            f"data.train_batch_size={size}"
        )
    if settings.algorithm.updates_per_step is None:
        for key, section in (("actor_rollout_ref.actor", actor), ("critic", settings.critic)):
            size = section.ppo_mini_batch_size
            if (size * settings.env.rollout.n) % processes:
                yield (
                    f"{key}.ppo_mini_batch_size={size} rows cannot be divided among {of_trainer}. "
                    f"Try: {key}.ppo_mini_batch_size={max(1, size // processes) * processes}"
                )
    rollout = settings.actor_rollout_ref.rollout
    sizes = {"tensor_model_parallel_size": rollout.tensor_model_parallel_size}
    if rollout.data_parallel_size > 1:
        sizes["data_parallel_size"] = rollout.data_parallel_size
    parallel = prod(sizes.values())
    if processes % parallel:
        named = " ".join(f"actor_rollout_ref.rollout.{name}={size}" for name, size in sizes.items())
        ones = " ".join(f"actor_rollout_ref.rollout.{name}=1" for name in sizes)
        yield f"{named}: {of_trainer} cannot be divided into engines of {parallel}. Try: {ones}"


def _lengths(settings: RunSettings) -> Iterator[str]:
    data, rollout = settings.data, settings.actor_rollout_ref.rollout
    for name, length in (("prompt", data.max_prompt_length), ("response", data.max_response_length)):
        follows = getattr(rollout, f"{name}_length")
        if follows != length:
            yield (
                f"actor_rollout_ref.rollout.{name}_length={follows} follows data.max_{name}_length={length} and must "
                f"not be set itself. Try: data.max_{name}_length={follows} "
                f"actor_rollout_ref.rollout.{name}_length={follows}"
            )
    longest = data.max_prompt_length + data.max_response_length
    needs = f"data.max_prompt_length + data.max_response_length = {longest}"
    for key, section in (("actor_rollout_ref.actor", settings.actor_rollout_ref.actor), ("critic", settings.critic)):
        budget = section.ppo_max_token_len_per_gpu
        if budget is None and settings.trainer.device == "cuda":
            name = f"{key}.ppo_max_token_len_per_gpu"
            yield f"{name}=null is computed on CPU only. Try: {name}=32768"
        if section.use_dynamic_bsz and budget is not None and budget < longest:
            yield (
                f"{key}.ppo_max_token_len_per_gpu={budget} is less than one row may need "
                f"({needs}). Try: {key}.ppo_max_token_len_per_gpu={longest}"
            )
        if not section.use_dynamic_bsz and section.ppo_micro_batch_size_per_gpu is None:
            yield (
                f"{key}.use_dynamic_bsz=false needs the rows of a micro-batch, and "
                f"{key}.ppo_micro_batch_size_per_gpu=null. Try: {key}.use_dynamic_bsz=true, or "
                f"{key}.ppo_micro_batch_size_per_gpu=4"
            )
    # An evaluation may cut replies; a prompt must leave room for one token, or the run ends.
    shortest = data.max_prompt_length + 1 if settings.trainer.val_only else longest
    if rollout.max_model_len is not None and rollout.max_model_len < shortest:
        yield (
            f"actor_rollout_ref.rollout.max_model_len={rollout.max_model_len} is less than a prompt and its reply may "
            f"need ({needs}). Try: actor_rollout_ref.rollout.max_model_len=null"
        )
    if settings.trainer.device == "cpu":
        if rollout.enable_chunked_prefill and settings.env.seeded_sampling:
            yield (
                "actor_rollout_ref.rollout.enable_chunked_prefill=true with env.seeded_sampling=true: on CPU, vLLM "
                "fails at the first prompt that it cuts. Try: actor_rollout_ref.rollout.enable_chunked_prefill=false, "
                "or env.seeded_sampling=false"
            )
        keys = "data.max_prompt_length + data.max_response_length"
        if rollout.max_model_len:
            longest, keys = rollout.max_model_len, "actor_rollout_ref.rollout.max_model_len"
        if not rollout.enable_chunked_prefill and rollout.max_num_batched_tokens < longest:
            yield (
                f"actor_rollout_ref.rollout.max_num_batched_tokens={rollout.max_num_batched_tokens} is less than a "
                f"prompt and its reply may need ({keys} = {longest}), and enable_chunked_prefill=false does not cut "
                f"prompts. Try: actor_rollout_ref.rollout.max_num_batched_tokens={longest}"
            )


def _steps(settings: RunSettings) -> Iterator[str]:
    data, trainer, tasks = settings.data, settings.trainer, settings.env.val_tasks
    if data.val_batch_size is not None and data.val_batch_size < tasks:
        yield (
            f"data.val_batch_size={data.val_batch_size}: the env.val_tasks={tasks} held-out tasks are played at once. "
            "Try: data.val_batch_size=null"
        )
    if trainer.max_critic_ckpt_to_keep != trainer.max_actor_ckpt_to_keep:
        yield (
            f"trainer.max_critic_ckpt_to_keep={typed(trainer.max_critic_ckpt_to_keep)}: a checkpoint of policy and "
            "critic is deleted as a whole, so the number must be that of trainer.max_actor_ckpt_to_keep. Try: "
            f"trainer.max_critic_ckpt_to_keep={typed(trainer.max_actor_ckpt_to_keep)}"
        )
    if trainer.save_best and trainer.test_freq <= 0:
        yield (
            "trainer.save_best=true: nothing is evaluated during training (trainer.test_freq="
            f"{trainer.test_freq}), so no checkpoint is the best. Try: trainer.test_freq=10"
        )
    if number_of_heads(settings) and trainer.critic_warmup > trainer.total_training_steps:
        yield (
            f"trainer.critic_warmup={trainer.critic_warmup}: the policy is trained from that step on, but the run ends "
            f"with trainer.total_training_steps={trainer.total_training_steps}. Try: trainer.critic_warmup=0"
        )
