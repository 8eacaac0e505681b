# SPDX-License-Identifier: Apache-2.0
"""Demonstrations: what players of mixed care reply in the states that a clumsy player visits.

The players know how every task is done, but they do not always choose well. On some turns they look around instead of
continuing, and in some episodes they plan hastily: they omit cleaning, heating or cooling until it turns out to be
necessary. A model that imitates them has the skill and both habits; reinforcement learning finds out which one pays, in
actions and in sub-goals. Imitation of a flawless expert leaves only mistakes of perception, and a short run is too
short to correct those (docs/dev/learning.md).

Some executed actions are not the player's own: a random admissible one, or one of the mistakes that a small model makes
(a receptacle that is not in the room, an object that is not in sight). Sometimes a wrong sub-goal is in force. These
slips are executed but are not training targets. A model that saw only flawless play meets the state after a mistake for
the first time when it makes one; this model has seen how to continue from there.

Prompts and the sub-goal in force come from `plan_execute.turn`, as in training, so the model learns from exactly the
texts that it will see. Workers import no torch.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import gymnasium
from tqdm import tqdm

from agent_system.environments.alfworld.env import ALFWorldEnv
from agent_system.environments.alfworld.expert import Expert, Exploration
from agent_system.environments.alfworld.rooms import RECEPTACLE_KINDS
from agent_system.environments.tasks import TaskPanel, epoch_order
from agent_system.plan_execute.advice import Advice
from agent_system.plan_execute.prompts import ALFRED, BLANK, PromptStyle
from agent_system.plan_execute.protocol import SWITCH
from agent_system.plan_execute.turn import EpisodeAgent
from agent_system.processes import end_with_parent

IDLE_ACTION = "look"


@dataclass(frozen=True)
class DemonstrationSpec:
    """How demonstrations are played.

    Args:
        episodes: number of episodes; games are played in turn, in a cycle.
        max_turns: turns after which an episode is cut.
        history_length, history_observations: earlier turns in a prompt, see `EpisodeMemory`.
        idle: share of turns on which the player looks around (`look`) instead of continuing.
        hasty: share of episodes whose player forgets to clean, heat or cool at first (`Expert(hasty=True)`).
        slips: share of turns on which another action than the player's is executed.
        wrong_subgoals: share of turns after which a wrong sub-goal is in force.
        listed: share of episodes that search receptacles in the order of the list; the others search at random.
        style: of prompts and replies, one of the compact ones. The episodes do not depend on it.
        seed: any integer.
    """

    episodes: int = 2000
    max_turns: int = 20
    history_length: int = 1
    history_observations: int | None = None
    idle: float = 0.4
    hasty: float = 0.5
    slips: float = 0.15
    wrong_subgoals: float = 0.03
    listed: float = 0.0
    style: PromptStyle = PromptStyle.PLAN_EXECUTE_COMPACT
    seed: int = 0


@dataclass(frozen=True)
class Example:
    """One turn: what the model is shown, and what the player replies."""

    prompt: str
    reply: str


@dataclass(frozen=True)
class Demonstration:
    """One episode."""

    examples: tuple[Example, ...]
    won: bool


def collect(games: Sequence[Path], spec: DemonstrationSpec, *, workers: int, progress: bool) -> list[Demonstration]:
    """Plays `spec.episodes` episodes. The result depends on the games (in their order) and the spec only.

    Episode `i` is played on game `i % len(games)`; the result has the episodes of the first game first, then those of
    the second, and so on: the engine keeps what it learned of a game, so replaying the same one at once costs little.
    """
    jobs = [(game, range(first, spec.episodes, len(games)), spec) for first, game in enumerate(games)]
    return gather(_demonstrate_game, jobs, spec.episodes, workers=workers, progress=progress, at_once=8)


def collect_on_games(
    panels: Mapping[str, TaskPanel], split: str, spec: DemonstrationSpec, *, workers: int, progress: bool
) -> list[Demonstration]:
    """`collect` on the games of `panels[split]`, in an order that the seed draws."""
    tasks = epoch_order(panels[split], spec.seed, epoch=0)
    return collect([Path(task.options["game_file"]) for task in tasks], spec, workers=workers, progress=progress)


def gather(
    play: Callable[[tuple], list[Demonstration]],
    jobs: Sequence[tuple],
    episodes: int,
    *,
    workers: int,
    progress: bool,
    at_once: int = 1,
) -> list[Demonstration]:
    """Play jobs in processes of their own, and return the demonstrations of all in the order of the jobs.

    Args:
        play: a function of a module, so that processes find it.
        episodes: of all jobs together, for the progress bar.
        workers: processes; they change the speed only.
        progress: whether a progress bar is drawn on standard error.
        at_once: jobs that a process fetches together.
    """
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(max(1, workers), mp_context=context, initializer=end_with_parent) as pool,
        tqdm(total=episodes, desc="demonstrations", unit="episode", disable=not progress) as bar,
    ):
        demonstrations: list[Demonstration] = []
        for some in pool.map(play, jobs, chunksize=at_once):
            demonstrations += some
            bar.update(len(some))
    return demonstrations


def _demonstrate_game(job: tuple[Path, range, DemonstrationSpec]) -> list[Demonstration]:
    game, numbers, spec = job
    return [_demonstrate(game, number, spec) for number in numbers]


def _demonstrate(game: Path, number: int, spec: DemonstrationSpec) -> Demonstration:
    rng = random.Random(f"{spec.seed}/{number}")
    environment = _environment(spec.max_turns)
    start = environment.reset(options={"game_file": game})
    exploration = Exploration.LISTED if rng.random() < spec.listed else Exploration.RANDOM
    expert = Expert(start[1]["task"], exploration, rng, hasty=rng.random() < spec.hasty)

    def advise(observation: str, admissible: Sequence[str], subgoal: str) -> Advice:
        expert.observe(observation, admissible)
        advice = expert.advise(subgoal)
        return replace(advice, action=IDLE_ACTION) if rng.random() < spec.idle else advice

    def act(admissible: Sequence[str], advice: Advice) -> str:
        return _slip(admissible, expert.intent.target, rng) if rng.random() < spec.slips else advice.action

    return play_episode(
        environment,
        start,
        demonstrator(spec, ALFRED),
        advise,
        act=act,
        reply=lambda advice: _played_reply(advice, expert, spec, rng),
    )


def settings_of(spec: Any) -> dict[str, Any]:
    """A specification as it is compared and hashed.

    Without `history_observations` where it is None: models that were made before it existed stay the models of their
    specifications.
    """
    values = asdict(spec)
    demonstrations = values["demonstrations"]
    if demonstrations.get("history_observations") is None:
        demonstrations.pop("history_observations", None)
    return values


class PromptSpec(Protocol):
    """What specifications of demonstrations say of the prompts."""

    @property
    def style(self) -> PromptStyle: ...
    @property
    def history_length(self) -> int: ...
    @property
    def history_observations(self) -> int | None: ...


def demonstrator(spec: PromptSpec, environment: str) -> EpisodeAgent:
    """The agent's side of one demonstrated episode. `environment` completes "You act in ..." in the full styles."""
    return EpisodeAgent(
        spec.style,
        spec.history_length,
        environment,
        history_observations=spec.history_observations,
        reply_style=PromptStyle.PLAN_EXECUTE_COMPACT,
    )


def play_episode(
    environment: gymnasium.Env[str, str],
    start: tuple[str, dict[str, Any]],
    agent: EpisodeAgent,
    advise: Callable[[str, Sequence[str], str], Advice],
    *,
    act: Callable[[Sequence[str], Advice], str],
    reply: Callable[[Advice], str] = lambda advice: advice.reply,
    written: Callable[[str], str] = str,
) -> Demonstration:
    """Play one episode with a scripted player, in any environment.

    Args:
        start: what `reset` returned.
        agent: writes the prompts, as in training (`demonstrator`).
        advise: the player, called with observation, admissible actions and the sub-goal in force.
        act: the action that is executed, called with the admissible actions and the advice: its own, or a slip.
        reply: the reply that takes effect; the advice, or one that puts a wrong sub-goal in force.
        written: applied to every prompt and reply that is written down.
    """
    observation, info = start
    examples = []
    ended = False
    while not ended:
        admissible = info["admissible_actions"]
        agent.observe(observation, admissible, info["task"])
        prompt = agent.whole_prompt()
        advice = advise(observation, admissible, agent.subgoal)
        examples.append(Example(written(prompt), written(advice.reply_in(agent.style))))
        action = act(admissible, advice)
        turn = agent.take(reply(advice), action=action)
        observation, _, terminated, truncated, info = environment.step(turn.action)
        ended = terminated or truncated
    return Demonstration(tuple(examples), info["won"])


def random_slips(rng: random.Random, share: float) -> Callable[[Sequence[str], Advice], str]:
    """Executes a random admissible action instead of the player's on a share of the turns (`act` of `play_episode`)."""

    def act(admissible: Sequence[str], advice: Advice) -> str:
        choices = [action for action in admissible if not BLANK.search(action)]
        return rng.choice(choices) if choices and rng.random() < share else advice.action

    return act


def _played_reply(advice: Advice, expert: Expert, spec: DemonstrationSpec, rng: random.Random) -> str:
    """The reply that takes effect: the advice, or one that puts a wrong sub-goal in force."""
    if rng.random() < spec.wrong_subgoals:
        return Advice(SWITCH, rng.choice(expert.intent.subgoals), advice.action).reply
    return advice.reply


def _slip(admissible: Sequence[str], target: str, rng: random.Random) -> str:
    """An action that a clumsy player might have chosen."""
    draw = rng.random()
    moves = [a for a in admissible if a.startswith("go to ")]
    if draw < 0.5 and moves:
        return rng.choice(moves)
    if draw < 0.7:
        return rng.choice(list(admissible))
    kind, number = rng.choice(RECEPTACLE_KINDS).lower(), rng.randint(1, 3)
    return f"go to {kind} {number}" if draw < 0.85 else f"take {target} {rng.randint(1, 2)} from {kind} {number}"


@lru_cache(maxsize=1)
def _environment(max_turns: int) -> ALFWorldEnv:
    return ALFWorldEnv(max_steps=max_turns)
