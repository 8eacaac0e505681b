# SPDX-License-Identifier: Apache-2.0
"""Checks of verl's own keys on the configuration tree, beyond the types and ranges in `schema_verl`."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.hiper.configuration.keys import flat_items
from recipe.hiper.configuration.section import Problem, typed

LOGGER_PACKAGES = {
    "wandb": "wandb",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "vemlp_wandb": "volcengine_ml_platform",
    "tensorboard": "tensorboard",
    "clearml": "clearml",
    "trackio": "trackio",
    "rl_insight": "rl_insight",
}
"""Packages that verl's logging backends import; the others need none."""


def wrong_types(values: Mapping[str, Any], usual: Mapping[str, Any]) -> list[Problem]:
    """Every key that holds text, nothing or infinity where the profile has a number, or anything but true and false
    where the profile has one of them.

    Args:
        values: plain values of the configuration.
        usual: those without the user's overrides.
    """
    expectations = dict(flat_items(usual))
    problems = []
    for key, value in flat_items(values):
        expected = expectations.get(key)
        if value == expected or not isinstance(expected, bool | int | float):
            continue
        is_ours = key.startswith(("env.", "algorithm.", "warm_start.", "data.", "trainer."))
        if isinstance(expected, bool):
            needed = None if isinstance(value, bool) else "true or false is needed"
        elif isinstance(value, bool | str | list | dict) or (value is None and is_ours):
            needed = "a number is needed"
        elif isinstance(value, float) and is_ours and not math.isfinite(value):
            needed = "a finite number is needed"
        elif isinstance(value, float) and isinstance(expected, int) and is_ours:
            needed = "a whole number is needed"
        else:
            needed = None
        if needed:
            problems.append(Problem(key, f"{key}={typed(value)}: {needed}. Try: {key}={typed(expected)}"))
    return problems


def verl_problems(config: DictConfig) -> Iterator[str]:
    """A message for every use of verl's keys that is known to fail late, or to do nothing."""
    yield from _trainer(config)
    yield from _replies(config)
    yield from _ray(config)
    yield from _rollout_correction(config)
    yield from _packed_attention(config)
    yield from _checkpoints(config)
    yield from _trained_weights(config)


def _trainer(config: DictConfig) -> Iterator[str]:
    trainer = config.trainer
    if trainer.v1.trainer_mode != "sync" or not trainer.use_v1:
        yield (
            f"trainer.use_v1={typed(trainer.use_v1)} trainer.v1.trainer_mode={trainer.v1.trainer_mode}: only verl's "
            "synchronous V1 trainer is supported here. Try: trainer.use_v1=true trainer.v1.trainer_mode=sync"
        )
    if trainer.resume_from_path and trainer.resume_mode != "resume_path":
        yield (
            f"trainer.resume_from_path={trainer.resume_from_path} is not read with "
            f"trainer.resume_mode={trainer.resume_mode}. Try: trainer.resume_from_path=null, or "
            "trainer.resume_mode=resume_path"
        )
    loggers = [trainer.logger] if isinstance(trainer.logger, str) else trainer.logger
    for logger in loggers:
        package = LOGGER_PACKAGES.get(logger)
        if package and importlib.util.find_spec(package) is None:
            others = [other for other in loggers if other != logger] or ["tensorboard"]
            yield (
                f"trainer.logger={typed(list(loggers))}: the package {package}, which {logger} needs, is not "
                f"installed. Try: trainer.logger={typed(others)}"
            )


def _replies(config: DictConfig) -> Iterator[str]:
    if config.actor_rollout_ref.rollout.ignore_eos:
        yield (
            "actor_rollout_ref.rollout.ignore_eos=true: no reply would end, and each would be cut at "
            "data.max_response_length. Try: actor_rollout_ref.rollout.ignore_eos=false"
        )
    model = config.actor_rollout_ref.model
    if model.custom_chat_template is not None:
        yield (
            "actor_rollout_ref.model.custom_chat_template is read by verl's rollout only, so demonstrations and "
            "evaluations would be rendered in another way. Try: actor_rollout_ref.model.custom_chat_template=null, and "
            "the template as chat_template.jinja in the folder of the model"
        )


def _ray(config: DictConfig) -> Iterator[str]:
    workers, cpus = config.env.pool.num_workers or 1, config.env.resources_per_worker.num_cpus
    has = config.ray_kwargs.ray_init.num_cpus
    if isinstance(has, int) and workers * cpus > has:
        yield (
            f"env.resources_per_worker.num_cpus={cpus} for each of {workers} environment processes "
            f"(env.pool.num_workers) is more than Ray has: ray_kwargs.ray_init.num_cpus={has}. Try: "
            f"env.resources_per_worker.num_cpus={math.floor(100 * has / (2 * workers)) / 100}"
        )


def _rollout_correction(config: DictConfig) -> Iterator[str]:
    correction = config.algorithm.get("rollout_correction") or {}
    section = "algorithm.rollout_correction"
    weights, rejection = correction.get("rollout_is"), correction.get("rollout_rs")
    if weights not in (None, "token", "sequence"):
        yield (
            f"{section}.rollout_is={weights}: weights are computed for each token or for each reply. Try: "
            f"{section}.rollout_is=token, {section}.rollout_is=sequence, or {section}.rollout_is=null"
        )
    if rejection and correction.get("rollout_rs_threshold") is None:
        yield (
            f"{section}.rollout_rs={rejection} needs a threshold. Try: {section}.rollout_rs_threshold=2.0, or "
            f"{section}.rollout_rs=null"
        )
    if correction.get("bypass_mode") and (weights or rejection):
        yield (
            f"{section}.bypass_mode=true takes vLLM's probabilities as those of the old policy, so that PPO's ratio "
            f"corrects for their difference, and neither weights nor rejection are applied. Try: "
            f"{section}.rollout_is=null {section}.rollout_rs=null, or {section}.bypass_mode=false"
        )
    loss = correction.get("loss_type", "ppo_clip")
    if loss != "ppo_clip":
        yield (f"{section}.loss_type={loss}: verl's V1 trainer does not read it. Try: {section}.loss_type=ppo_clip")
    used = weights or rejection or correction.get("bypass_mode")
    if used and not config.actor_rollout_ref.rollout.calculate_log_probs:
        yield (
            f"{section} needs the probabilities of vLLM, but actor_rollout_ref.rollout.calculate_log_probs=false. Try: "
            "actor_rollout_ref.rollout.calculate_log_probs=true"
        )
    if correction.get("bypass_mode") and config.critic.backbone == "policy":
        yield (
            "critic.backbone=policy reads the values in the pass for the log-probabilities, which "
            "algorithm.rollout_correction.bypass_mode=true leaves out. Try: critic.backbone=own"
        )


def _packed_attention(config: DictConfig) -> Iterator[str]:
    for model, roles in (
        ("actor_rollout_ref.model", ("actor_rollout_ref.actor", "actor_rollout_ref.ref")),
        ("critic.model", ("critic",)),
    ):
        settings = OmegaConf.select(config, model)
        attention = f"{model}.override_config.attn_implementation"
        if (settings.override_config or {}).get("attn_implementation") != "torch_varlen":
            continue
        if not settings.use_remove_padding:
            yield (
                f"{attention}=torch_varlen works on rows without padding only. Try: {model}.use_remove_padding=true, "
                f"or {attention}=sdpa"
            )
        if "verl_plugins.packed" not in (settings.external_lib or ""):
            yield (
                f"{attention}=torch_varlen is defined in a module of this repository, which nothing imports. Try: "
                f"{model}.external_lib=verl_plugins.packed"
            )
        sections = [f"{role}{section}" for role in roles for section in ("", ".fsdp_config", ".fsdp")]
        for key in (f"{section}.ulysses_sequence_parallel_size" for section in sections):
            if (OmegaConf.select(config, key) or 1) > 1:
                parts = OmegaConf.select(config, key)
                yield (
                    f"{key}={parts} splits rows over GPUs, which verl does with flash-attn only. Try: {key}=1, or "
                    f"{attention}=flash_attention_2 (needs the package flash-attn)"
                )
                break


def _checkpoints(config: DictConfig) -> Iterator[str]:
    for key in ("actor_rollout_ref.actor.checkpoint.async_save", "critic.checkpoint.async_save"):
        if OmegaConf.select(config, key):
            yield (
                f"{key}=true: with FSDP verl then never records which step it saved, and trainer.resume_mode=auto "
                f"silently starts at step 0 (verl#7952). Try: {key}=false"
            )


def _trained_weights(config: DictConfig) -> Iterator[str]:
    for section in ("actor_rollout_ref.actor.fsdp_config", "critic.fsdp"):
        key = f"{section}.model_dtype"
        dtype = OmegaConf.select(config, key)
        if dtype not in ("fp32", "float32", None):
            yield (
                f"{key}={dtype}: the optimizer's small steps would be lost in the rounding of the weights; passes in "
                f"{dtype} over float32 weights are chosen by mixed_precision.param_dtype. Try: {key}=fp32 "
                f"{section}.mixed_precision.param_dtype={dtype}"
            )
