# SPDX-License-Identifier: Apache-2.0
"""What the code gives today for everything that is recorded, in the form of the data files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import adapter
from golden_cases import REPLY_FORMATS, REPLY_STATES, EstimatorCase
from golden_files import batch_rows, encoded
from golden_scripts import script_overrides
from omegaconf import DictConfig, OmegaConf

from agent_system.rollout.environment_registry import FAMILY_NAMES

ENVIRONMENTS = ("alfworld", "webshop")
"""Those of which episodes and prompts are recorded."""
CONFIGURED = FAMILY_NAMES
"""Those of which the configuration is recorded: all."""
PROFILES = ("cpu", "gpu")
REFERENCE = "HiPER_trainer/run_{}.sh"
"""The script whose configuration is stored in full, for each environment."""
NEUTRAL: tuple[str, ...] = ()
"""Keys whose values depend on the machine or the time. There are none: `--cfg job` prints the configuration before it
is resolved and before `fill_in_machine`. A key that comes to depend on them is listed here and compared by presence
only."""


# --- replies and advantages -------------------------------------------------------------------------------------------


def replies(pieces_of: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Every reply in every format and state: {"pieces": [...], "read": {"three_blocks, turn 0, kept ''": {...}}}."""
    return [
        {
            "pieces": list(pieces),
            "read": {
                f"{reply_format}, turn {turn}, kept {kept!r}": adapter.read_reply(reply_format, pieces, turn, kept)
                for reply_format in REPLY_FORMATS
                for turn, kept in REPLY_STATES
            },
        }
        for pieces in pieces_of
    ]


def episode_replies(reply_format: str, episode: dict[str, Any]) -> list[dict[str, Any]]:
    """What is read in each reply of a recorded episode, and the action that the environment gets."""
    turns, kept = [], ""
    for number, turn in enumerate(episode["turns"]):
        reply = adapter.read_reply(reply_format, turn["pieces"], number, kept)
        action, is_admissible = adapter.listed_action(reply["action"], turn["admissible_actions"])
        turns.append({"reply": reply, "action": action, "admissible": is_admissible})
        kept = reply["subgoal_in_force"]
    return turns


def advantages(case: EstimatorCase, batches: dict[str, Any]) -> dict[str, list[str]]:
    """Fields of the estimator's result, each with a line for each row (`golden_files.encoded`)."""
    rows = batch_rows(batches[case.batch], case.bootstrap)
    return {name: encoded(_storable(x)) for name, x in adapter.token_credit(rows, case.overrides).items()}


def _storable(x):
    return x if x.is_floating_point() else x.bool()


# --- prompts ----------------------------------------------------------------------------------------------------------


def count_words(text: str) -> int:
    """The token counter of the prompts."""
    return len(text.split())


def transcript(recorded: dict[str, Any], batches: dict[str, Any], environment: str, style: str) -> dict[str, Any]:
    """The recorded episode from which an environment's prompts in a style are rendered."""
    name = f"{environment} {'compact' if adapter.is_compact(style) else 'full'}"
    place = recorded["transcripts"][name]
    return batches[place["batch"]]["episodes"][place["episode"]]


def prompt_text(style: str, environment: str, episode: dict[str, Any], cases: Sequence[dict[str, Any]]) -> str:
    """All prompts of an environment in a style, each below a line that says which it is and what it lost."""
    sections = []
    for case in cases:
        turn, history_length, budget = case["turn"], case["history_length"], case["budget"]
        title = f"turn {turn}, history_length {history_length}"
        if budget is None:
            text = adapter.prompt(style, environment, episode, turn, history_length)
            title += f": {count_words(text)} tokens"
        else:
            fitted = adapter.prompt_in_budget(style, environment, episode, turn, history_length, count_words, budget)
            text = fitted.pop("text", "")
            title += f", budget {budget}: " + ", ".join(f"{name} {value}" for name, value in fitted.items())
        sections.append(f"=== {title}\n{text}")
    return "\n".join(sections)


# --- configurations ---------------------------------------------------------------------------------------------------


def script_config(script: str, profile: str) -> DictConfig:
    """What `script profile=... --cfg job` prints, as a configuration."""
    return adapter.composed(script_overrides(script, profile))


def environment_of(script: str) -> str:
    """The environment that a script trains on."""
    return next(environment for environment in CONFIGURED if script.endswith(f"run_{environment}.sh"))


def leaves(config: DictConfig) -> dict[str, Any]:
    """Dotted keys with their values, interpolations as they are written. Lists and empty sections are values."""
    result: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                visit(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            result[prefix] = "<neutral>" if prefix in NEUTRAL else value

    visit("", OmegaConf.to_container(config, resolve=False))
    return result


def changed_keys(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A line for every key that was added, removed or changed. 1, 1.0, "1" and true differ."""
    lines = [f"added    {key}: {after[key]!r}" for key in after if key not in before]
    lines += [f"removed  {key}: {before[key]!r}" for key in before if key not in after]
    lines += [
        f"changed  {key}: {before[key]!r} -> {after[key]!r}"
        for key in before
        if key in after and repr(before[key]) != repr(after[key])
    ]
    return lines
