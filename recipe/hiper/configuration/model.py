# SPDX-License-Identifier: Apache-2.0
"""The model: does it exist, does it fit its tokenizer, the prompts and the lengths of the run?"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

from omegaconf import DictConfig, OmegaConf, open_dict

from agent_system.errors import ConfigError
from agent_system.plan_execute.prompts import PromptLayout, PromptParts, PromptStyle, render_prompt
from agent_system.rollout.environment_registry import environment_spec
from agent_system.rollout.tokens import PromptEncoder
from recipe.hiper.configuration.model_sizes import WEIGHT_FILES, has_own_critic
from recipe.hiper.configuration.problems import raise_all
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.configuration.section import typed

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes of vLLM's attention on CPU (`CPUAttentionBackend.get_supported_head_sizes`)."""


COLD_START_FILES = ("cold_start.json", "warm_start.json")
"""What `recipe.hiper.cold_start` writes into a fine-tuned model and into the small model: how it was demonstrated."""

SMOLLM2 = "smollm2"
"""Value of `warm_start.base` that names no folder and no model on the hub."""

TEMPLATE_KEY = "data.apply_chat_template_kwargs"

SHORTEST_TURN = 32
"""Tokens that task, observation, sub-goal and admissible actions of a turn need at least, in any environment."""


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
    base = settings.warm_start.base
    if settings.warm_start.enable and not paths["actor_rollout_ref.model.path"] and base != SMOLLM2:
        paths["warm_start.base"] = base
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
        if not settings.warm_start.enable:
            yield (
                "actor_rollout_ref.model.path=null with warm_start.enable=false: there is no model to train. Try: "
                "warm_start.enable=true, or actor_rollout_ref.model.path=<folder or name>"
            )
        elif settings.warm_start.base is None:
            yield from _small_model(settings)


def _small_model(settings: RunSettings) -> Iterator[str]:
    # torch and transformers are only needed for the sizes of the small model
    from recipe.hiper.cold_start.model import ModelSpec

    if settings.env.system_prompt:
        yield (
            f"env.system_prompt={settings.env.system_prompt!r}: the small model is made without a system message and "
            "would not know it. Try: env.system_prompt=null"
        )
    if settings.warm_start.lora_rank:
        yield (
            f"warm_start.lora_rank={settings.warm_start.lora_rank}: the small model is made from nothing, and adapters "
            "need a model to be added to. Try: warm_start.lora_rank=0, or model=smollm2"
        )
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
    """Check the model against its tokenizer, the prompts and the lengths of the run.

    Raises:
        ConfigError: the model cannot be read, vocabulary and tokenizer do not fit, it was taught other prompts, or the
            model or the budget is too short for prompt and reply.
    """
    from agent_system.rollout.tokenizer_checks import text_problems

    path = config.actor_rollout_ref.model.path
    key = f"actor_rollout_ref.model.path={path}"
    model, tokenizer = read_model("actor_rollout_ref.model.path", path)
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
        problems += _prompt_budget(config, tokenizer)
        problems += text_problems(path, tokenizer, config.data.apply_chat_template_kwargs, config.env.system_prompt)
    longest = config.data.max_prompt_length + config.data.max_response_length
    if longest > model.max_position_embeddings:
        problems.append(_too_long(config.data.max_response_length, longest, model.max_position_embeddings))
    problems += cold_start_problems(config)
    critic = config.critic.model.path
    if has_own_critic(config) and critic != path:
        vocabulary = read_model("critic.model.path", critic)[0].vocab_size
        if vocabulary < len(tokenizer):
            problems.append(
                f"critic.model.path={critic} knows {vocabulary} tokens, but it reads those of {key}, "
                f"{len(tokenizer)}. Try: critic.model.path={path}"
            )
    raise_all(problems)


def read_model(key: str, path: str) -> tuple[Any, Any]:
    """The configuration and the tokenizer of a folder or a model on the hub.

    Raises:
        ConfigError: there is none, or the hub cannot be reached.
    """
    from transformers import AutoConfig

    return _read(key, path, AutoConfig.from_pretrained), read_tokenizer(path, key)


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "spiece.model")


def require_model_files(key: str, path: str) -> None:
    """Check that a folder holds all of a model, and not its config.json alone. A name on the hub is not checked.

    Raises:
        ConfigError: weights, a part of them or the tokenizer is missing.
    """
    if missing := _missing_files(Path(path).expanduser()):
        raise ConfigError(f"{key}={path} {missing}. Try: {key}=<folder or hub name of a model>")


def _missing_files(folder: Path) -> str | None:
    """What is missing in a folder with a config.json, to follow its name; None for everything else.

    Without them transformers makes an empty tokenizer, and verl ends after minutes.
    """
    if not (folder / "config.json").is_file():
        return None
    if not any((folder / name).is_file() for name in WEIGHT_FILES):
        return f"holds no weights ({WEIGHT_FILES[0]} or {', '.join(WEIGHT_FILES[1:])})"
    for name in WEIGHT_FILES:
        if name.endswith(".index.json") and (folder / name).is_file():
            parts = set(json.loads((folder / name).read_text("utf-8"))["weight_map"].values())
            missing = sorted(part for part in parts if not (folder / part).is_file())
            if missing:
                return f"lacks {', '.join(missing)}, which {name} lists"
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return f"holds no tokenizer ({' or '.join(TOKENIZER_FILES)})"
    return None


def read_tokenizer(path: str, key: str = "actor_rollout_ref.model.path") -> Any:
    """The tokenizer of a folder or a model on the hub.

    Raises:
        ConfigError: as `read_model`.
    """
    from transformers import AutoTokenizer

    return _read(key, path, AutoTokenizer.from_pretrained)


def _read(key: str, path: str, read: Callable[..., Any]) -> Any:
    is_local = Path(path).is_dir() or not _hub_answers()
    try:
        return read(path, local_files_only=is_local)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        if is_local and not Path(path).is_dir():
            reason = "it is not in the cache of the hub, and the hub does not answer"
        raise ConfigError(
            f"{key}={path} cannot be read ({reason}). Try: {key}=<folder or hub name of a model>"
        ) from error


@cache
def _hub_answers(timeout_s: float = 3.0) -> bool:
    """Whether the hub can be reached, or may be through a proxy. transformers tries for more than a minute."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", "") or getproxies().get("https"):
        return True  # the library decides
    from huggingface_hub.constants import ENDPOINT

    address = urlsplit(ENDPOINT)
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout_s).close()
    except OSError:
        return False
    return True


def run_style(config: DictConfig) -> PromptStyle:
    """The prompt style of the run."""
    env = config.env
    return environment_spec(env.env_name).style(env.prompt_style, env.prompt_layout, env.short_keep)


def template_arguments(config: DictConfig) -> dict[str, Any]:
    """`data.apply_chat_template_kwargs`: what the chat template gets besides the messages."""
    return cast("dict[str, Any]", OmegaConf.to_container(config.data.apply_chat_template_kwargs, resolve=True))


def constant_tokens(config: DictConfig, tokenizer: Any) -> int:
    """Tokens of a prompt that are the same in every turn: rules and chat template."""
    encoder = PromptEncoder(tokenizer, template_arguments(config), config.env.system_prompt)
    spec = environment_spec(config.env.env_name)
    empty = PromptParts(task="", history=(), turn=1, observation="", subgoal="x", admissible_actions=())
    return encoder.count(render_prompt(run_style(config), empty, environment=spec.environment))


def _prompt_budget(config: DictConfig, tokenizer: Any) -> Iterator[str]:
    """A message where the rules and the chat template alone leave no room for what happens in a turn.

    Without it the run would end at its first turn, after minutes (`PromptOverBudget`).
    """
    constant = constant_tokens(config, tokenizer)
    budget = config.data.max_prompt_length
    if constant + SHORTEST_TURN > budget:
        enough = -(-(constant + 6 * SHORTEST_TURN) // 64) * 64
        other = ", or env.prompt_style=compact with a model that was taught such prompts"
        yield (
            f"data.max_prompt_length={budget}: with this tokenizer the rules of env.prompt_style="
            f"{config.env.prompt_style} and the chat template take {constant} tokens, which leaves too few for task, "
            f"observation and actions. Try: data.max_prompt_length={enough}"
            f"{other if config.env.prompt_style == 'full' else ''}"
        )


def _turns_with_observation(shown: int | None) -> str:
    return "all earlier turns" if shown is None else f"{shown} of the earlier turns"


def cold_start_problems(config: DictConfig) -> Iterator[str]:
    """A message for each way in which the prompts of the run differ from those that the model was taught with.

    The folder of a cold start says how it was demonstrated. A folder without such a file may hold any model.
    """
    record = read_cold_start(Path(config.actor_rollout_ref.model.path))
    demonstrations = record.get("spec", {}).get("demonstrations", {})
    taught = f"actor_rollout_ref.model.path={config.actor_rollout_ref.model.path} was taught"
    other = "actor_rollout_ref.model.path=<another model>"
    style = run_style(config)
    if "style" in demonstrations and demonstrations["style"] != style.value:
        remedy = _overrides_of_style(config, demonstrations["style"])
        yield (
            f"{taught} with prompts of the style {demonstrations['style']}, but this run has {style.value} "
            f"(env.prompt_style={config.env.prompt_style} env.short_keep={typed(config.env.short_keep)}). "
            f"Try: {f'{remedy}, or ' if remedy else ''}{other}"
        )
    length = demonstrations.get("history_length")
    if length is not None and length != config.env.history_length:
        yield (
            f"{taught} with {length} earlier turns in a prompt, but this run has "
            f"env.history_length={config.env.history_length}. Try: env.history_length={length}, or {other}"
        )
    shown = demonstrations.get("history_observations")
    if demonstrations and shown != config.env.history_observations:
        yield (
            f"{taught} with observations in {_turns_with_observation(shown)}, but this run has "
            f"env.history_observations={typed(config.env.history_observations)}. "
            f"Try: env.history_observations={typed(shown)}, or {other}"
        )
    arguments = template_arguments(config)
    recorded = record.get("spec", {}).get("template_kwargs") or {}
    if record and arguments != recorded:
        yield (
            f"{taught} with {TEMPLATE_KEY}={typed(recorded)}, but this run has {typed(arguments)}, which renders other "
            f"prompts. Try: {TEMPLATE_KEY}={typed(recorded)}, or {other}"
        )
    spec = record.get("spec", {})
    system_prompt = spec.get("system_prompt")
    if "system_prompt" in spec and system_prompt != config.env.system_prompt:
        yield (
            f"{taught} with env.system_prompt={typed(system_prompt)}, but this run has "
            f"{typed(config.env.system_prompt)}. Try: env.system_prompt={typed(system_prompt)}, or {other}"
        )


def read_cold_start(folder: Path) -> dict[str, Any]:
    """What the folder of a demonstrated model says about itself; empty for any other model.

    Raises:
        ConfigError: the file is damaged.
    """
    for path in (folder / name for name in COLD_START_FILES):
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read ({error}). Try: delete {folder} and make it again") from error
        return content if isinstance(content, dict) else {}
    return {}


def has_cold_start(models: Path, base: str) -> bool:
    """Whether the folder `models` of the cache holds a model that was fine-tuned from `base`."""
    folders = (path.parent for path in models.glob(f"*/{COLD_START_FILES[0]}"))
    return any(read_cold_start(folder).get("spec", {}).get("base") == base for folder in folders)


def _overrides_of_style(config: DictConfig, style: str) -> str | None:
    """The overrides that choose a prompt style in the environment of the run; None where none does."""
    spec = environment_spec(config.env.env_name)
    layouts = [config.env.prompt_layout, *PromptLayout]
    for wording, layout, short_keep in product(("full", "compact"), layouts, (False, True)):
        if spec.style(wording, layout, short_keep).value == style:
            overrides = f"env.prompt_style={wording} env.short_keep={typed(short_keep)}"
            changed = layout != config.env.prompt_layout
            return f"{overrides} env.prompt_layout={PromptLayout(layout).value}" if changed else overrides
    return None
