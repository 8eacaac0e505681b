# SPDX-License-Identifier: Apache-2.0
"""How a model plays held-out tasks, with nothing of the trainer in between: plain transformers.

    python -m recipe.hiper.cold_start.evaluate --model <folder> --games <folder> --episodes 128
    python -m recipe.hiper.cold_start.evaluate --model <folder> --shop <folder> --episodes 128

The panel is the one that training validates on: every model meets the same tasks.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import torch
from scipy.stats import binomtest
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

import agent_system.environments  # noqa: F401  (registers the ids)
from agent_system.environments.alfworld.games import alfworld_panel
from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import HELD_OUT_SEED, TaskPanel, held_out_subset
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.shop import open_shop
from agent_system.environments.webshop.tasks import shop_panel
from agent_system.errors import HiPERError
from agent_system.plan_execute.prompts import ALFRED, PromptStyle
from agent_system.plan_execute.turn import EpisodeAgent
from agent_system.rollout.tokens import PromptEncoder, reply_text
from recipe.hiper.cold_start.pretrained import MANIFEST


@dataclass(frozen=True)
class PlaySpec:
    """How the model plays. Lengths in tokens; the defaults are those of the CPU profile on ALFWorld.

    `environment` completes "You act in ..." in the full styles. `env_kwargs` are passed to `gymnasium.make` besides the
    step limit. `system_prompt` and `template_kwargs` are those of `PromptEncoder`.
    """

    temperature: float = 0.4
    max_turns: int = 20
    history_length: int = 1
    history_observations: int | None = None
    max_prompt: int = 256
    max_reply: int = 48
    seed: int = 0
    style: PromptStyle = PromptStyle.PLAN_EXECUTE_COMPACT
    environment: str = ALFRED
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    system_prompt: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


def as_trained(spec: PlaySpec, model: Path) -> PlaySpec:
    """The same with the system prompt and the template arguments that a fine-tuned model was trained with."""
    path = model / MANIFEST
    if not path.exists():
        return spec
    trained = json.loads(path.read_text("utf-8"))["spec"]
    return replace(
        spec,
        system_prompt=trained.get("system_prompt"),
        template_kwargs=trained.get("template_kwargs") or {},
    )


def in_shop(spec: PlaySpec, shop: Path) -> PlaySpec:
    """The same with the CPU profile's values for WebShop."""
    kwargs = {"data_dir": str(shop), "observation_mode": "compact"}
    return replace(spec, max_turns=10, history_length=0, max_prompt=512, env_kwargs=kwargs)


@dataclass
class Episode:
    """One played task, and what is counted in it."""

    kind: str
    won: bool = False
    score: float = 0.0
    turns: int = 0
    valid: int = 0
    admissible: int = 0
    switches: int = 0


@dataclass(frozen=True)
class Report:
    """Figures over all episodes. `entropy` is the mean over reply tokens at temperature 1, in nats."""

    episodes: list[Episode] = field(repr=False)
    entropy: float

    @property
    def success(self) -> float:
        return sum(e.won for e in self.episodes) / len(self.episodes)

    def __str__(self) -> str:
        turns = sum(e.turns for e in self.episodes)
        low, high = wilson_interval(sum(e.won for e in self.episodes), len(self.episodes))
        lines = [
            f"success            {self.success:6.1%}  (95% Wilson interval {low:.1%} to {high:.1%}, "
            f"{len(self.episodes)} tasks)",
            f"score              {sum(e.score for e in self.episodes) / len(self.episodes):6.3f}",
            f"valid replies      {sum(e.valid for e in self.episodes) / turns:6.1%}",
            f"admissible actions {sum(e.admissible for e in self.episodes) / turns:6.1%}",
            f"switches           {sum(e.switches for e in self.episodes) / turns:6.1%} of turns",
            f"turns              {turns / len(self.episodes):6.1f}  per episode",
            f"entropy            {self.entropy:6.3f}  nats per reply token",
        ]
        by_kind = defaultdict(list)
        for episode in self.episodes:
            by_kind[episode.kind].append(episode.won)
        lines += [f"  {kind:34s} {sum(won) / len(won):6.1%}  of {len(won)}" for kind, won in sorted(by_kind.items())]
        return "\n".join(lines)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95% Wilson score interval of a success rate (E. B. Wilson, 1927)."""
    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return interval.low, interval.high


def goals_panel(shop: Path, part: str, episodes: int) -> TaskPanel:
    """The synthetic goals that every model is measured on in a shop; `part` is train, eval or test.

    Raises:
        ConfigError: there is no such shop or part, or it has fewer goals than `episodes`.
    """
    goals = shop_panel(open_shop(shop.absolute()), Goals.SYNTHETIC, Split.FIXED, part, 0, limit=20_000)
    return held_out_subset(goals, episodes, HELD_OUT_SEED)


def panel(games: Path, split: str, episodes: int) -> TaskPanel:
    """The games that every model is measured on, with the kinds of tasks in the proportions of the split.

    Raises:
        ConfigError: the folder has no games, or fewer than `episodes`.
    """
    return held_out_subset(alfworld_panel(games, split), episodes, HELD_OUT_SEED)


@torch.inference_mode()
def play(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    games: TaskPanel,
    spec: PlaySpec,
    *,
    progress: bool,
) -> Report:
    """Plays all tasks side by side; the replies of a turn are generated as one batch."""
    torch.manual_seed(spec.seed)
    encoder = PromptEncoder(tokenizer, spec.template_kwargs, spec.system_prompt)
    episodes = [_RunningEpisode(task, spec, encoder) for task in games.tasks]
    entropy, tokens = 0.0, 0
    with tqdm(total=len(episodes), desc="held-out tasks", unit="task", disable=not progress) as bar:
        while running := [episode for episode in episodes if not episode.finished]:
            prompts = [encoder.encode(episode.prompt()) for episode in running]
            replies, batch_entropy, batch_tokens = _generate(model, tokenizer, prompts, spec)
            entropy, tokens = entropy + batch_entropy, tokens + batch_tokens
            for episode, reply in zip(running, replies, strict=True):
                episode.play(reply)
            bar.update(sum(episode.finished for episode in running))
    return Report([episode.episode for episode in episodes], entropy / max(1, tokens))


class _RunningEpisode:
    """One task being played."""

    def __init__(self, task: TaskSpec, spec: PlaySpec, encoder: PromptEncoder):
        self.episode = Episode(task.kind)
        self.finished = False
        self._spec, self._encoder = spec, encoder
        self._agent = EpisodeAgent(
            spec.style, spec.history_length, spec.environment, history_observations=spec.history_observations
        )
        self._environment = gymnasium.make(
            task.env_id, max_steps=spec.max_turns, disable_env_checker=True, **spec.env_kwargs
        )
        observation, info = self._environment.reset(seed=task.seed, options=dict(task.options))
        self._agent.observe(observation, info["admissible_actions"], info["task"])

    def prompt(self) -> str:
        return self._agent.prompt(self._encoder.count, self._spec.max_prompt).text

    def play(self, text: str) -> None:
        turn = self._agent.take(text)
        self.episode.turns += 1
        self.episode.valid += turn.reply.valid
        self.episode.admissible += turn.admissible
        self.episode.switches += turn.decision is not None and turn.decision.boundary
        observation, _, terminated, truncated, info = self._environment.step(turn.action)
        self._agent.observe(observation, info["admissible_actions"], info["task"])
        self.finished = terminated or truncated
        self.episode.won, self.episode.score = info["won"], info["score"]
        if self.finished:
            self._environment.close()


def _generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[list[int]], spec: PlaySpec
) -> tuple[list[str], float, int]:
    """Replies, and the summed entropy of the model's distributions over their tokens, with the number of tokens."""
    stop_ids = _stop_ids(model, tokenizer)
    encoded = tokenizer.pad({"input_ids": list(prompts)}, padding_side="left", return_tensors="pt")
    sampling = {"do_sample": True, "temperature": spec.temperature, "top_k": 0} if spec.temperature > 0 else {}
    output = model.generate(
        **encoded,
        **(sampling or {"do_sample": False}),
        max_new_tokens=spec.max_reply,
        eos_token_id=stop_ids,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids_BL = output.sequences[:, encoded["input_ids"].shape[1] :]
    replies = [_until_stop(ids, stop_ids) for ids in ids_BL.tolist()]
    lengths_B1 = torch.tensor([len(ids) for ids in replies]).unsqueeze(1)
    written_BL = (torch.arange(ids_BL.shape[1]) < lengths_B1).float()
    log_probs_BLV = torch.stack(output.logits, dim=1).float().log_softmax(-1)
    entropy_BL = -(log_probs_BLV.exp() * log_probs_BLV).sum(-1)
    texts = [reply_text(tokenizer, ids, stop_ids) for ids in replies]
    return texts, float((entropy_BL * written_BL).sum()), int(written_BL.sum())


def _stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The tokens that end a reply, as in a rollout (`agent_system.rollout.stop_tokens`)."""
    configured = model.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])} - {None})


def _until_stop(ids: list[int], stop_ids: list[int]) -> list[int]:
    """A reply with its stop token; what follows is padding."""
    return ids[: next((index for index, token_id in enumerate(ids) if token_id in stop_ids), len(ids)) + 1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: plays the panel and prints the report."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.hiper.cold_start.evaluate",
        description="Play held-out tasks with a model and print its success rate.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    default = PlaySpec()
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--games", type=Path, help="folder made by ...alfworld.generate")
    data.add_argument("--shop", type=Path, help="folder made by ...webshop.prepare")
    parser.add_argument("--split", help="train, valid_seen or valid_unseen; of a shop train, eval or test")
    parser.add_argument("--episodes", type=int, default=128, help="games in the panel")
    parser.add_argument("--temperature", type=float, default=default.temperature, help="0 is greedy")
    parser.add_argument("--max-turns", type=int, help="turns of an episode (default: as the CPU profile)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--flat", action="store_true", help="the model replies with the action alone")
    form.add_argument("--short-keep", action="store_true", help="the model leaves a kept sub-goal out")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of the sampling, not of the panel")
    options = parser.parse_args(arguments)
    style = PromptStyle.PLAN_EXECUTE_COMPACT_SHORT if options.short_keep else PromptStyle.PLAN_EXECUTE_COMPACT
    style = PromptStyle.FLAT_COMPACT if options.flat else style
    spec = as_trained(PlaySpec(temperature=options.temperature, seed=options.seed, style=style), options.model)
    try:
        if options.shop:
            spec, games = (
                in_shop(spec, options.shop),
                goals_panel(options.shop, options.split or "eval", options.episodes),
            )
        else:
            games = panel(options.games, options.split or "valid_unseen", options.episodes)
        if options.max_turns is not None:
            spec = replace(spec, max_turns=options.max_turns)
    except HiPERError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    print(play(model, AutoTokenizer.from_pretrained(options.model), games, spec, progress=True))


if __name__ == "__main__":
    main()
