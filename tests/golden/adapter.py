# SPDX-License-Identifier: Apache-2.0
"""The only module of the golden tests that imports from the project.

When modules move or functions are renamed, this file follows and nothing else here changes. Its functions take and
return plain values (str, float, list, dict) and tensors, in the terms of the data files.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from agent_system.plan_execute.admissible import as_listed, is_admissible
from agent_system.plan_execute.memory import EpisodeMemory
from agent_system.plan_execute.prompts import (
    ALFRED,
    WEBSHOP,
    PromptLayout,
    PromptOverBudget,
    PromptStyle,
    fit_prompt,
    render_prompt,
)
from agent_system.plan_execute.protocol import decide, parse_flat, parse_reply, token_spans
from agent_system.rollout.environment_registry import ENVIRONMENTS, environment_spec
from agent_system.rollout.records import TurnRecord
from recipe.hiper.configuration.keys import USUAL_MODEL
from recipe.hiper.configuration.settings import HiPERSettings
from recipe.hiper.estimators.values import read_slots
from recipe.hiper.trainer.token_credit import batch_credit
from recipe.hiper.trainer.turn_batch import BatchTurns

CONFIG_MODULE, CONFIG_NAME = "recipe.hiper.config", "hiper_trainer"
GROUPS = ("profile", "env", "model", "algorithm/hae")
"""Config groups among the overrides; every other override sets a value."""

SENTENCES = {"alfworld": ALFRED, "webshop": WEBSHOP}
"""What completes "You act in ..." in the prompts."""


# --- replies ----------------------------------------------------------------------------------------------------------


def read_reply(reply_format: str, pieces: Sequence[str], turn: int, kept_subgoal: str) -> dict[str, Any]:
    """Parse a reply and decide what it does, as the agent loop does.

    Args:
        reply_format: "three_blocks", "short_keep", "flat" (with a think block) or "flat_nothink".
        pieces: text of each token.
        turn: index of the turn.
        kept_subgoal: sub-goal in force before it.
    """
    text = "".join(pieces)
    if reply_format in ("three_blocks", "short_keep"):
        reply = parse_reply(text, short_keep=reply_format == "short_keep" and bool(kept_subgoal))
        decision = decide(reply, turn, kept_subgoal)
    else:
        reply, decision = parse_flat(text, require_think=reply_format == "flat"), None
    spans = token_spans(reply, pieces)
    return {
        "switch": reply.switch if decision else "",
        "subgoal": reply.subgoal,
        "action": reply.action,
        "problems": [problem.value for problem in reply.problems],
        "boundary": decision.boundary if decision else True,
        "switch_in_force": decision.switch if decision else "",
        "subgoal_in_force": decision.subgoal if decision else "",
        "copied_exactly": decision.copied_exactly if decision else False,
        "comparable": decision.comparable if decision else False,
        "switch_span": list(spans.switch),
        "subgoal_span": list(spans.subgoal),
        "action_span": list(spans.action),
        "value_low": spans.value_low,
    }


def listed_action(action: str, admissible: Sequence[str]) -> tuple[str, bool]:
    """The action that the environment gets, and whether it is admissible."""
    listed = as_listed(action, admissible)
    return listed, is_admissible(listed, admissible)


# --- advantages -------------------------------------------------------------------------------------------------------


def token_credit(rows: Sequence[dict[str, Any]], overrides: Sequence[str]) -> dict[str, torch.Tensor]:
    """What an estimator makes of a batch.

    Args:
        rows: see `golden_files.batch_rows`.
        overrides: Hydra overrides that choose the estimator and its settings.

    Returns:
        "token_advantages" and "loss_mask" `[rows, tokens]`, "value_targets" and "value_mask" `[rows, 3]` in the order
        high, low, term, and "switch_probability" `[rows]`.
    """
    settings = HiPERSettings.from_config(composed(overrides))
    turns = BatchTurns.from_fields(
        [f"{row['episode']}_{index}" for index, row in enumerate(rows)],
        [row["padding"] for row in rows],
        [_record(row).to_fields() for row in rows],
    )
    values = None
    if settings.num_heads:
        heads = [_padded([row["values"][head] for row in rows]) for head in range(settings.num_heads)]
        values = read_slots(heads, turns.value_low)
    is_response = _padded([row["response_mask"] for row in rows])
    credit = batch_credit(turns, values, _padded([row["log_probs"] for row in rows]), settings, is_response)
    return {
        "token_advantages": credit.token_advantages,
        "loss_mask": credit.credit_mask,
        "value_targets": credit.value_targets,
        "value_mask": credit.value_mask,
        "switch_probability": credit.switch_probability,
    }


def _record(row: dict[str, Any]) -> TurnRecord:
    reply = row["reply"]
    return TurnRecord(
        task_id=row["episode"].rsplit("_", 1)[0],
        kind=row["environment"],
        split="train",
        turn=row["turn"],
        prompt="",
        reply="".join(row["pieces"]),
        observation=row["observation"],
        switch=reply["switch"],
        subgoal=reply["subgoal"],
        action=row["action"],
        problems=tuple(reply["problems"]),
        boundary=reply["boundary"],
        subgoal_in_force=reply["subgoal_in_force"],
        copied_exactly=reply["copied_exactly"],
        comparable=reply["comparable"],
        admissible=row["admissible"],
        reward=row["reward"],
        terminated=row["terminated"],
        truncated=row["truncated"],
        stop=row["stop"],
        won=row["won"],
        score=row["score"],
        spans=tuple(tuple(reply[name]) for name in ("switch_span", "subgoal_span", "action_span")),
        value_low=reply["value_low"],
        dropped_turns=0,
        observation_cut=False,
        bootstrap=row["bootstrap"],
    )


def _padded(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.float32) for row in rows], batch_first=True)


# --- prompts ----------------------------------------------------------------------------------------------------------


def styles() -> list[str]:
    """Names of all prompt styles."""
    return [style.value for style in PromptStyle]


def is_compact(style: str) -> bool:
    """Whether the style is a few labelled lines, for which WebShop shows its compact pages."""
    return PromptStyle(style).is_compact


def styles_of_environments() -> dict[str, dict[str, str]]:
    """For each `env.env_name`: its sentence, and its style for each prompt style, layout and `env.short_keep`."""
    table = {}
    for env_name in ENVIRONMENTS:
        spec = environment_spec(env_name)
        table[env_name] = {"sentence": spec.environment}
        for prompt_style in ("full", "compact"):
            for layout, short_keep in product(PromptLayout, (False, True)):
                name = f"prompt_style={prompt_style} prompt_layout={layout.value} short_keep={short_keep}"
                table[env_name][name] = spec.style(prompt_style, layout, short_keep).value
    return table


def prompt(style: str, environment: str, episode: dict[str, Any], turn: int, history_length: int) -> str:
    """The prompt of a turn of a recorded episode, with nothing left out."""
    parts = _parts(style, episode, turn, history_length)
    return render_prompt(style, parts, environment=SENTENCES[environment])


def prompt_in_budget(
    style: str,
    environment: str,
    episode: dict[str, Any],
    turn: int,
    history_length: int,
    count_tokens: Callable[[str], int],
    budget: int,
) -> dict[str, Any]:
    """The prompt within a budget and what it lost, or by how much it is over budget whatever it loses."""
    parts = _parts(style, episode, turn, history_length)
    try:
        fitted = fit_prompt(style, parts, count_tokens, budget, environment=SENTENCES[environment])
    except PromptOverBudget as error:
        return {"needed": error.needed, "full": error.full, "budget": error.budget}
    return {
        "text": fitted.text,
        "tokens": fitted.tokens,
        "dropped_turns": fitted.dropped_turns,
        "observation_cut": fitted.observation_cut,
    }


def _parts(style: str, episode: dict[str, Any], turn: int, history_length: int):
    style = PromptStyle(style)
    memory = EpisodeMemory(history_length)
    for played in episode["turns"][:turn]:
        decision = None
        if style.has_subgoal:
            reply = parse_reply("".join(played["pieces"]), short_keep=style.has_short_keep and bool(memory.subgoal))
            decision = decide(reply, memory.turn, memory.subgoal)
        memory.record(decision, played["observation"], played["action"])
    now = episode["turns"][turn]
    return memory.parts(now["observation"], now["admissible_actions"], episode["task"])


# --- configurations ---------------------------------------------------------------------------------------------------


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration as `python -m recipe.hiper.main --cfg job` composes it, not resolved.

    Composing takes half a second. Values are therefore set on a copy of what the config groups give, as Hydra does it;
    `test_golden_configurations` compares with a real start.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    chosen = {override.key_or_group: override.value() for override in parsed if override.key_or_group in GROUPS}
    chosen.setdefault("model", USUAL_MODEL[chosen.get("profile", "cpu")])  # as `hardware.choose_profile` does
    config = pickle.loads(_groups(tuple(f"{group}={chosen[group]}" for group in GROUPS if group in chosen)))
    for override in parsed:
        if override.key_or_group not in GROUPS:
            OmegaConf.update(config, override.key_or_group, override.value())
    return config


@cache
def _groups(overrides: tuple[str, ...]) -> bytes:
    """Pickled: a copy is made fifteen times faster than with `deepcopy`."""
    GlobalHydra.instance().clear()
    with initialize_config_module(CONFIG_MODULE, version_base=None):
        return pickle.dumps(compose(CONFIG_NAME, overrides=list(overrides)))


# --- environments and scripted players --------------------------------------------------------------------------------
# Only `record.py --episodes` calls these. They import inside, because the game engine takes seconds that no test needs.

Adviser = Callable[[str, Sequence[str], str], tuple[str, str, str]]
"""(observation, admissible actions, sub-goal in force) -> (switch word, sub-goal, action)."""


def make_games(folder: Path, number: int, seed: int) -> list[Path]:
    """Generate ALFWorld games."""
    from agent_system.environments.alfworld.game_spec import GameSpec
    from agent_system.environments.alfworld.generate import generate_games

    generate_games(folder, GameSpec(train=number, valid_seen=6, valid_unseen=6, seed=seed), workers=1, progress=False)
    return sorted((folder / "json_2.1.1" / "train").rglob("game.tw-pddl"))


def open_game(game: Path, max_steps: int):
    """A Gymnasium environment that plays this game."""
    import gymnasium

    import agent_system.environments  # noqa: F401

    return gymnasium.make("hiper/ALFWorld-v0", game_file=game, max_steps=max_steps)


def game_adviser(task: str, rng) -> Adviser:
    """A scripted player of ALFWorld that sometimes forgets a step."""
    from agent_system.environments.alfworld.expert import Expert, Exploration

    expert = Expert(task, Exploration.RANDOM, rng, hasty=rng.random() < 0.5)

    def advise(observation: str, admissible: Sequence[str], subgoal: str) -> tuple[str, str, str]:
        expert.observe(observation, admissible)
        advice = expert.advise(subgoal)
        return advice.switch, advice.subgoal, advice.action

    return advise


def make_shop(folder: Path, products: int, seed: int) -> Path:
    """Generate a shop of WebShop."""
    from agent_system.environments.webshop.generator.catalogue import CatalogueSpec
    from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop

    prepare_shop(folder, ShopSpec(catalogue=CatalogueSpec(products=products, seed=seed)))
    return folder


def open_shop(shop: Path, observation_mode: str, max_steps: int, penalty: float):
    """A Gymnasium environment that shops there."""
    import gymnasium

    import agent_system.environments  # noqa: F401

    return gymnasium.make(
        "hiper/WebShop-v0",
        data_dir=shop,
        observation_mode=observation_mode,
        max_steps=max_steps,
        early_terminate_penalty=penalty,
    )


def shop_adviser(task: str, rng, env) -> Adviser:
    """A careless scripted shopper. It reads compact pages, whatever the agent is shown."""
    from agent_system.environments.webshop.compact import compact_text, to_site_action
    from agent_system.environments.webshop.shopper import Shopper

    shopper = Shopper(task, rng, hasty=0.4, blind=0.3, curious=0.15)
    site = env.unwrapped.site

    def advise(observation: str, admissible: Sequence[str], subgoal: str) -> tuple[str, str, str]:
        page = compact_text(site)
        advice = shopper.advise(page, admissible, subgoal)
        # On a compact page products have letters, on the others their ids.
        action = advice.action if observation == page else to_site_action(site, advice.action)
        return advice.switch, advice.subgoal, action

    return advise
