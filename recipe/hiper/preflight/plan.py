# SPDX-License-Identifier: Apache-2.0
"""What a run is going to do, in a dozen lines, before anything is started or created."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from omegaconf import DictConfig

from agent_system.errors import HiPERError
from recipe.hiper.configuration.gpu_memory import ASSUMED_CARD_BYTES, residents
from recipe.hiper.configuration.hardware import gpu_bytes
from recipe.hiper.configuration.host_memory import free_bytes
from recipe.hiper.configuration.model import constant_tokens, read_tokenizer
from recipe.hiper.configuration.model_sizes import ModelSize, has_own_critic
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.configuration.settings import episodes_at_once, number_of_heads
from recipe.hiper.preflight.disk import checkpoints_to_write
from recipe.hiper.preflight.folders import read_folder
from recipe.hiper.preflight.host import host_bytes
from recipe.hiper.preflight.sizes import checkpoint_size
from recipe.hiper.run_dir.resume import saves_checkpoints
from recipe.hiper.tasks.families import family_of

WIDTH = 116
NAME_WIDTH = 10

Sizes = Mapping[str, ModelSize] | None


def plan(config: DictConfig, settings: RunSettings, sizes: Sizes, start: Path | None, cache: Path) -> dict[str, str]:
    """What the run does, by a word for each part.

    Args:
        config: checked, with the number of training processes filled in.
        settings: what was read from it.
        sizes: of the models; None where they are not known before the model is made or downloaded.
        start: the checkpoint that the run resumes from; None for step 0.
        cache: folder of generated data and models.
    """
    return {
        "model": _model(config, settings, sizes),
        "method": _method(config, settings),
        "tasks": family_of(settings).describe(cache),
        "episodes": _episodes(settings),
        "updates": _updates(settings),
        "prompts": _prompts(config),
        "memory": _memory(config, sizes),
        "disk": _disk(config, settings, sizes),
        "run": _run(settings, start),
    }


def lines(parts: Mapping[str, str]) -> Iterator[str]:
    """The parts of a plan as indented lines."""
    for name, text in parts.items():
        wrapped = textwrap.wrap(text, WIDTH - NAME_WIDTH, break_long_words=False, break_on_hyphens=False)
        yield f"{name:<{NAME_WIDTH}}{wrapped[0]}"
        yield from (" " * NAME_WIDTH + line for line in wrapped[1:])


def _model(config: DictConfig, settings: RunSettings, sizes: Sizes) -> str:
    policy = settings.actor_rollout_ref
    name = policy.model.path
    if name is None:
        base = settings.warm_start.base
        name = f"{base}, fine-tuned on demonstrations" if base else "the small model, made from demonstrations"
    if sizes is not None:
        actor = sizes["actor"]
        adapters = "" if actor.trained == actor.parameters else f", {actor.trained / 1e6:,.1f} million trained"
        name += f" ({actor.parameters / 1e6:,.1f} million parameters{adapters})"
    processes = config.trainer.n_gpus_per_node * config.trainer.nnodes
    one, more = ("process", "processes") if config.trainer.device == "cpu" else ("GPU", "GPUs")
    return f"{name}; trained by {processes} {one if processes == 1 else more}"


def _method(config: DictConfig, settings: RunSettings) -> str:
    heads = number_of_heads(settings)
    critic = "no critic"
    if heads:
        where = "a model of its own" if has_own_critic(config) else "the policy's hidden states"
        critic = f"{heads} value head{'s' if heads > 1 else ''} on {where}"
    return f"{settings.algorithm.adv_estimator}, {critic}; prompts {settings.env.env_name}, {settings.env.prompt_style}"


def _episodes(settings: RunSettings) -> str:
    env, tasks = settings.env, settings.data.train_batch_size
    workers = env.pool.num_workers
    pool = f"{workers} processes" if workers else "one process for every 16 where the cores suffice"
    return (
        f"{tasks} tasks x {env.rollout.n} = {tasks * env.rollout.n} a step, {env.max_steps} turns at most; up to "
        f"{episodes_at_once(settings)} at once, in {pool}"
    )


def _updates(settings: RunSettings) -> str:
    rows = settings.data.train_batch_size * settings.env.rollout.n * settings.env.max_steps
    updates = settings.algorithm.updates_per_step
    size = settings.actor_rollout_ref.actor.ppo_mini_batch_size * settings.env.rollout.n
    how = f"{updates} equal mini-batches" if updates else f"mini-batches of {size}"
    return f"at most {rows:,} turns a step, each one row; {how}"


def _prompts(config: DictConfig) -> str:
    budget = f"{config.data.max_prompt_length} tokens, replies {config.data.max_response_length}"
    path = config.actor_rollout_ref.model.path
    measured = _longest_prompt(Path(config.run_dir))
    earlier = "" if measured is None else f"; longest so far in this folder: {measured:.0f}"
    if path is None:
        return f"{budget}; not measured before the model is made{earlier}"
    try:
        constant = constant_tokens(config, read_tokenizer(path))
    except HiPERError:  # reported by the checks of the model
        return f"{budget}{earlier}"
    return f"{budget}; rules and chat template take {constant}{earlier}"


def _longest_prompt(folder: Path) -> float | None:
    """Tokens of the longest prompt of an earlier start of the run."""
    try:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return None
    return max((row["prompt_length/max"] for row in rows if row.get("prompt_length/max")), default=None)


def _memory(config: DictConfig, sizes: Sizes) -> str:
    free = f"{free_bytes() / 1e9:.1f} GB are free"
    if sizes is None:
        return f"not known before the model is; {free}"
    host = f"about {host_bytes(config, sizes) / 1e9:.1f} GB of this machine"
    if config.trainer.device == "cpu":
        return f"{host} beside the activations; {free}"
    card = gpu_bytes()
    held = sum(model.bytes_awake for model in residents(config, sizes))
    size = f"{card / 1e9:.0f} GB" if card else f"{ASSUMED_CARD_BYTES / 1e9:.0f} GB (assumed: no GPU here)"
    return f"{host}; {free}; the models hold {held / 1e9:.1f} GB of each GPU's {size}"


def _disk(config: DictConfig, settings: RunSettings, sizes: Sizes) -> str:
    if not saves_checkpoints(settings):
        return "no checkpoints"
    free = read_folder(Path(settings.trainer.default_local_dir)).free
    if sizes is None:
        return f"{free / 1e9:,.1f} GB are free; checkpoints are not known before the model is"
    size, number = checkpoint_size(sizes), checkpoints_to_write(config)
    return f"{size / 1e9:.2f} GB a checkpoint, up to {number} more at a time; {free / 1e9:,.1f} GB are free"


def _run(settings: RunSettings, start: Path | None) -> str:
    trainer = settings.trainer
    origin = f"from {start}" if start else "from step 0"
    if trainer.val_only:
        what = start or "the model as it is before training"
        return f"evaluates {what} on {settings.env.val_tasks} tasks"
    every = f"saved every {trainer.save_freq}" if trainer.save_freq > 0 else "not saved"
    evaluated = f"evaluated every {trainer.test_freq}" if trainer.test_freq > 0 else "not evaluated"
    return f"{trainer.total_training_steps} steps {origin}, {every}, {evaluated}, in {settings.run_dir}"
