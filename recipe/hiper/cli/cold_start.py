# SPDX-License-Identifier: Apache-2.0
"""Make the model that a training starts from, and report what it can do before reinforcement learning."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from agent_system.environments.tasks import HELD_OUT_SEED, held_out_subset
from agent_system.errors import ConfigError
from recipe.hiper.cli.train import check, make_ready
from recipe.hiper.configuration.model import read_cold_start, run_style
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.tasks.families import family_of
from recipe.hiper.tasks.preparation import cache_folder

REPORT = "report.json"
"""In the folder of the model."""


def cold_start(config: DictConfig) -> None:
    """Make or reuse the model of a configuration, play held-out tasks with it, and print the report.

    Raises:
        HiPERError: something is wrong with the configuration, the tasks or the model; the message has what to type.
    """
    settings = check(config)
    if settings.actor_rollout_ref.model.path or not settings.warm_start.enable:
        raise ConfigError(
            f"actor_rollout_ref.model.path={settings.actor_rollout_ref.model.path} "
            f"warm_start.enable={str(settings.warm_start.enable).lower()}: there is no model to make. Try: "
            "actor_rollout_ref.model.path=null warm_start.enable=true warm_start.base=<folder or hub name>"
        )
    make_ready(config, settings)
    folder = Path(config.actor_rollout_ref.model.path)
    print(f"model: {folder}")
    figures = {}
    if held_out := read_cold_start(folder).get("held_out"):
        figures["held_out"] = held_out
        print(
            f"held-out turns     {held_out['turns']}: loss {held_out['loss']:.3f} nats a token, "
            f"{held_out['exact']:.1%} of the replies exactly the player's"
        )
    if settings.warm_start.report_tasks:
        figures["played"] = _play(config, settings, folder)
    (folder / REPORT).write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    print(f"report: {folder / REPORT}")


def _play(config: DictConfig, settings: RunSettings, folder: Path) -> dict:
    """Play held-out tasks, and print the figures."""
    # torch and transformers take seconds, and errors above need neither
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from recipe.hiper.cold_start.evaluate import PlaySpec, as_trained, play

    family = family_of(settings)
    held_out = family.panels(family.prepare(cache_folder(), progress=False))["val"]
    tasks = held_out_subset(held_out, min(settings.warm_start.report_tasks, len(held_out)), HELD_OUT_SEED)
    spec = PlaySpec(
        temperature=settings.actor_rollout_ref.rollout.val_kwargs.temperature,
        max_turns=settings.env.max_steps,
        history_length=settings.env.history_length,
        history_observations=settings.env.history_observations,
        max_prompt=settings.data.max_prompt_length,
        max_reply=settings.data.max_response_length,
        seed=settings.env.seed,
        style=run_style(config),
        environment=family.spec.environment,
        env_kwargs=OmegaConf.to_container(config.env.kwargs, resolve=True),  # type: ignore[arg-type]
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    report = play(model, AutoTokenizer.from_pretrained(folder), tasks, as_trained(spec, folder), progress=True)
    print(report)
    sys.stdout.flush()
    return {"success": report.success, "episodes": [asdict(episode) for episode in report.episodes]}
