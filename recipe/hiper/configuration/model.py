# SPDX-License-Identifier: Apache-2.0
"""The model: does it exist, does it fit its tokenizer and the lengths of the run, how large is a checkpoint?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, open_dict

from agent_system.errors import ConfigError
from recipe.hiper.configuration.problems import raise_all
from recipe.hiper.configuration.schema import RunSettings

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes of vLLM's attention on CPU (`CPUAttentionBackend.get_supported_head_sizes`)."""


def is_folder_name(path: str) -> bool:
    """Whether the value names a folder. Everything else may be a name on the Hugging Face hub: `Qwen/Qwen2.5-1.5B`."""
    return path.startswith(("/", ".", "~")) or path.count("/") > 1


def expand_model_paths(config: DictConfig) -> None:
    """Replace a leading ~ in the paths of the models; transformers would take it for a name on the hub."""
    with open_dict(config):
        for model in (config.critic.model, config.actor_rollout_ref.model):  # the critic's may follow the policy's
            if model.path and model.path.startswith("~"):
                model.path = str(Path(model.path).expanduser())


def model_problems(settings: RunSettings) -> Iterator[str]:
    """A message for everything about the model that can be known before anything is made."""
    paths = {
        "actor_rollout_ref.model.path": settings.actor_rollout_ref.model.path,
        "critic.model.path": settings.critic.model.path,
    }
    if paths["critic.model.path"] == paths["actor_rollout_ref.model.path"]:
        del paths["critic.model.path"]
    for key, path in paths.items():
        if not path:
            continue
        folder = Path(path).expanduser()
        if (is_folder_name(path) or folder.is_dir()) and not (folder / "config.json").is_file():
            problem = "holds no config.json, so it is no model" if folder.is_dir() else "there is no such folder"
            usual = "Qwen/Qwen2.5-1.5B-Instruct" if settings.trainer.device == "cuda" else "null"
            small = " for the small model" if usual == "null" else ""
            yield f"{key}={path}: {problem}. Try: {key}=<folder or hub name of a model>, or {key}={usual}{small}"
    if settings.actor_rollout_ref.model.path is None:
        if settings.warm_start.enable:
            yield from _small_model(settings)
            if settings.warm_start.base is None and settings.env.system_prompt:
                yield (
                    f"env.system_prompt={settings.env.system_prompt!r}: the small model is made without a system "
                    "message and would not know it. Try: env.system_prompt=null"
                )
        else:
            yield (
                "actor_rollout_ref.model.path=null with warm_start.enable=false: there is no model to train. Try: "
                "warm_start.enable=true, or actor_rollout_ref.model.path=<folder or name>"
            )


def _small_model(settings: RunSettings) -> Iterator[str]:
    # torch and transformers are only needed for the sizes of the small model
    from recipe.hiper.cold_start.model import ModelSpec

    sizes = {name: value for name, value in settings.warm_start.model.model_dump().items() if value is not None}
    hidden, heads = sizes.get("hidden", ModelSpec.hidden), sizes.get("heads", ModelSpec.heads)
    size, rest = divmod(hidden, heads)
    on_cpu = settings.trainer.device == "cpu"
    if rest or (on_cpu and size not in CPU_HEAD_SIZES):
        reason = "the heads share the hidden dimensions equally"
        if not rest:
            reason = f"vLLM on CPU has no attention for heads of {size} dimensions, only {CPU_HEAD_SIZES}"
        fitting = [count for count in range(hidden, 0, -1) if hidden % count == 0 and hidden // count in CPU_HEAD_SIZES]
        remedy = f"warm_start.model.heads={fitting[0]}" if fitting else "warm_start.model.hidden=128"
        if not fitting and "heads" in sizes:
            remedy += " warm_start.model.heads=4"
        yield f"warm_start.model.heads={heads} with warm_start.model.hidden={hidden}: {reason}. Try: {remedy}"
    else:
        replace(ModelSpec(), **sizes)  # its own rules, should there be more
    longest = settings.data.max_prompt_length + settings.data.max_response_length
    if longest > ModelSpec.positions:
        yield _too_long(settings.data.max_response_length, longest, ModelSpec.positions)


def _too_long(response: int, longest: int, positions: int) -> str:
    problem = (
        f"data.max_prompt_length + data.max_response_length = {longest} exceeds the {positions} positions of the model"
    )
    if response < positions:
        return f"{problem}. Try: data.max_prompt_length={positions - response}"
    return (
        f"{problem}. Try: data.max_prompt_length={positions - positions // 4} data.max_response_length={positions // 4}"
    )


def check_model(config: DictConfig) -> None:
    """Check the model against its tokenizer and the lengths of the run.

    Raises:
        ConfigError: the model cannot be read, vocabulary and tokenizer do not fit, or the model is too short for
            prompt and reply.
    """
    from transformers import AutoConfig, AutoTokenizer

    from agent_system.rollout.tokenizer_checks import text_problems

    path = config.actor_rollout_ref.model.path
    key = f"actor_rollout_ref.model.path={path}"
    try:
        model, tokenizer = AutoConfig.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{key} cannot be read ({reason}). Try: actor_rollout_ref.model.path=<folder or hub name of a model>"
        ) from error
    problems = []
    if len(tokenizer) > model.vocab_size:
        problems.append(
            f"{key}: the tokenizer has {len(tokenizer)} tokens but the model knows {model.vocab_size}; the model does "
            "not belong to this tokenizer. Try: actor_rollout_ref.model.path=<another model>"
        )
    elif len(tokenizer) < model.vocab_size and not config.trainer.allow_padded_vocabulary:
        problems.append(
            f"{key}: the model's vocabulary ({model.vocab_size}) is longer than the tokenizer ({len(tokenizer)}); vLLM "
            "never samples the surplus tokens but the trainer counts them, so the two policies differ. Try: "
            "trainer.allow_padded_vocabulary=true"
        )
    if not tokenizer.is_fast:
        problems.append(
            f"{key}: a fast tokenizer (tokenizer.json) is needed. Try: actor_rollout_ref.model.path=<another model>"
        )
    elif not tokenizer.chat_template:
        problems.append(
            f"{key}: the tokenizer has no chat template. Try: actor_rollout_ref.model.path=<an instruction-tuned model>"
        )
    else:
        problems += text_problems(path, tokenizer, config.data.apply_chat_template_kwargs, config.env.system_prompt)
    longest = config.data.max_prompt_length + config.data.max_response_length
    if longest > model.max_position_embeddings:
        problems.append(_too_long(config.data.max_response_length, longest, model.max_position_embeddings))
    raise_all(problems)


def checkpoint_bytes(model_path: str, with_critic: bool) -> int:
    """Estimated size of one checkpoint: policy, and critic, each with float32 weights and AdamW's two moments.

    The parameters are counted on a model without storage, so a name on the hub is as good as a folder.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_path))
    parameters: int = model.num_parameters()
    return parameters * 4 * 3 * (2 if with_critic else 1)
