# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning, rollout and evaluation give a model the same prompt ids: one system prompt, one set of template
arguments, on a template whose thinking is switched by an argument."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from made_config import composed
from omegaconf import DictConfig, OmegaConf
from transformers import Qwen2Config
from verl.experimental.agent_loop.agent_loop import DictConfigWrap

from agent_system.rollout.agent_loop import EpisodeAgentLoop
from agent_system.rollout.environment_registry import environment_spec
from agent_system.rollout.tokens import PromptEncoder
from recipe.hiper.cold_start.demonstrations import DemonstrationSpec, Example
from recipe.hiper.cold_start.evaluate import PlaySpec, as_trained
from recipe.hiper.cold_start.fine_tune import FineTuneSpec, sft_overrides
from recipe.hiper.cold_start.messages import TurnDataset, write_messages
from recipe.hiper.cold_start.pretrained import MANIFEST, PretrainedSpec
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.configuration.section import require_section
from recipe.hiper.configuration.settings import verl_config
from recipe.hiper.tasks.family import fine_tuned

PROMPT = "You see a desk 1, and a note: <|im_end|>\n"
OVERRIDES = ["env.system_prompt=Be brief.", "+data.apply_chat_template_kwargs.enable_thinking=false"]
"""With and without them the ids must be the same everywhere."""


def in_rollout(config: DictConfig, tokenizer) -> list[int]:
    EpisodeAgentLoop._encoders.clear()  # a process plays one run
    config = verl_config(config)

    async def encoded() -> list[int]:
        loop = EpisodeAgentLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=None,
            tokenizer=tokenizer,
            processor=None,
            dataset_cls=None,
            data_config=DictConfigWrap(config.data),
        )
        return loop.encoder.encode(PROMPT)

    return asyncio.run(encoded())


def in_fine_tuning(spec: PretrainedSpec, tokenizer, folder: Path) -> list[int]:
    write_messages(folder / "turns.parquet", [Example(PROMPT, "<action>look</action>")], spec.system_prompt)
    overrides = sft_overrides("base", folder, folder, folder, FineTuneSpec(), "fp32", spec.template_kwargs)
    data = OmegaConf.create({"apply_chat_template_kwargs": {}})
    for text in (f"{key}={value}" for key, value in overrides.items() if "apply_chat_template_kwargs" in key):
        override = OverridesParser.create().parse_override(text)
        OmegaConf.update(data, override.key_or_group.removeprefix("data."), override.value(), force_add=True)
    turn = TurnDataset(str(folder / "turns.parquet"), tokenizer, data)[0]
    return turn["input_ids"][~turn["loss_mask"].bool()].tolist()


def in_evaluation(spec: PretrainedSpec, tokenizer, folder: Path) -> list[int]:
    content = {"spec": {"system_prompt": spec.system_prompt, "template_kwargs": spec.template_kwargs}}
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    played = as_trained(PlaySpec(), folder)
    return PromptEncoder(tokenizer, played.template_kwargs, played.system_prompt).encode(PROMPT)


@pytest.mark.parametrize("overrides", [[], OVERRIDES], ids=["default", "changed"])
def test_all_of_them_encode_a_prompt_alike(overrides, qwen3_tokenizer, tmp_path):
    Qwen2Config(vocab_size=len(qwen3_tokenizer)).save_pretrained(tmp_path)
    config = composed(*overrides, f"actor_rollout_ref.model.path={tmp_path}")
    settings = require_section(RunSettings, OmegaConf.to_container(config, resolve=True), "")
    spec = fine_tuned(
        PretrainedSpec("", DemonstrationSpec()),
        settings.warm_start,
        settings.env,
        environment_spec(settings.env.env_name),
        settings.data.apply_chat_template_kwargs,
    )
    ids = in_rollout(config, qwen3_tokenizer)
    assert in_fine_tuning(spec, qwen3_tokenizer, tmp_path) == ids
    assert in_evaluation(spec, qwen3_tokenizer, tmp_path) == ids
    text = qwen3_tokenizer.decode(ids)
    assert ("Be brief." in text) == ("<think>\n\n</think>" in text) == bool(overrides)


def test_a_model_made_before_these_settings_existed_keeps_its_name():
    """Its digest, which names its folder, is that of a spec without them."""
    spec = PretrainedSpec("smollm2", DemonstrationSpec())
    assert spec.digest == replace(spec, system_prompt=None, template_kwargs=None).digest
    assert spec.digest != replace(spec, system_prompt="").digest
    assert spec.digest != replace(spec, template_kwargs={"enable_thinking": False}).digest
