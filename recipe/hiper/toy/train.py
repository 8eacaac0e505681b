# SPDX-License-Identifier: Apache-2.0
"""PPO on the tiny game: warm start, then iterations of play, estimate and update, as the trainer's are.

Not one line of an estimator stands here but verl's `gae`, which knows nothing of turns: it gives every reply of an
episode the whole episode's return (`A = R - V`, whitened; at lambda 1 and discount 1, its defaults).
"""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from recipe.hiper.estimators.registry import Estimate, TurnGrids, estimate, whitened
from recipe.hiper.estimators.shaping import shaped_rewards
from recipe.hiper.estimators.values import Head, explained_variance
from recipe.hiper.estimators.whitening import whiten
from recipe.hiper.toy.agent import Critic, Policy
from recipe.hiper.toy.arms import Arm
from recipe.hiper.toy.game import House
from recipe.hiper.toy.play import LearnedPlayer, Played, ScriptedPlayer, play
from recipe.hiper.toy.tables import NONE, Tables, compile_house


@dataclass(frozen=True)
class Training:
    """How long and how fast.

    Attributes:
        iterations: of `groups` * `group_size` episodes each; a group plays one task.
        critic_only: iterations in which only the critic learns (`trainer.critic_warmup`); where there is none, none.
        mini_batches: of a pass over the batch; the policy passes over it once, the critic `Arm.critic_epochs` times.
        clip, entropy, lr, critic_lr, grad_clip: of PPO and Adam.
        demonstrations, warm_steps, warm_lr: episodes of the scripted player, passes over them and their step size.
    """

    iterations: int = 100
    groups: int = 8
    group_size: int = 8
    critic_only: int = 0
    mini_batches: int = 4
    clip: float = 0.2
    entropy: float = 0.003
    lr: float = 3e-3
    critic_lr: float = 1e-2
    grad_clip: float = 1.0
    demonstrations: int = 512
    warm_steps: int = 120
    warm_lr: float = 2e-2


@dataclass
class Curve:
    """What a run showed, one entry per iteration; what is about values is NaN without a critic.

    Attributes:
        success, turns, switch_rate, segment_length: of the episodes played.
        entropy: mean entropy of switch, sub-goal and action.
        explained: explained variance of the high, low and term values.
        expected, earned: mean high value, and mean discounted return from there on, of the turns that open a later
            segment: where `hae` bootstraps.
        seconds: of the whole run.
    """

    success: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)
    switch_rate: list[float] = field(default_factory=list)
    segment_length: list[float] = field(default_factory=list)
    entropy: list[list[float]] = field(default_factory=list)
    explained: list[list[float]] = field(default_factory=list)
    expected: list[float] = field(default_factory=list)
    earned: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Game:
    """What is played.

    Attributes:
        house: the rules.
        sees_kept: whether sub-goals are written with the kept one in sight, see `LearnedPlayer`.
        misread, slip, whim, repeat: of the scripted player whose episodes are the warm start, see `ScriptedPlayer`.
    """

    house: House = House()
    sees_kept: bool = False
    misread: float = 0.4
    slip: float = 0.25
    whim: float = 0.2
    repeat: float = 0.5


def train(game: Game, arm: Arm, seed: int, how: Training = Training()) -> Curve:
    """One run. Runs of one seed start from the same policy and play the same tasks, whatever the estimator."""
    started = time.perf_counter()
    tables = compile_house(game.house, arm.plans)
    policy = warm_policy(game, arm.plans, seed, how)
    torch.manual_seed(seed)
    critic = Critic(tables.features.shape[1], arm.heads) if arm.heads else None
    policy_adam = torch.optim.Adam(policy.parameters(), lr=how.lr, fused=True)
    critic_adam = torch.optim.Adam(critic.parameters(), lr=how.critic_lr, fused=True) if critic else None
    chance, tasks = np.random.default_rng((seed, 1)), np.random.default_rng((seed, 2))
    curve = Curve()
    for iteration in range(how.iterations):
        tasks_E, group_E = draw_tasks(tables, tasks, how)
        player = LearnedPlayer(tables, policy, chance, sees_kept=game.sees_kept, plans=arm.plans, forced=arm.forced)
        played = play(tables, tasks_E, player)
        prompts = value_prompts(tables, played, arm, game.sees_kept)
        with torch.no_grad():
            values = critic(tables.features, prompts) if critic else None
        grids = turn_grids(played, group_E, values)
        found, advantages = credit(grids, arm)
        if critic:
            _update_critic(critic, critic_adam, tables.features, prompts, found, arm, how)
        if iteration >= (how.critic_only if critic else 0):
            entropies = _update_policy(policy, policy_adam, tables, played, advantages, game, arm, how)
        else:
            entropies = [float("nan")] * 3
        _note(curve, played, values, found, entropies, arm.estimator.hae.gamma)
    curve.seconds = time.perf_counter() - started
    return curve


def draw_tasks(tables: Tables, chance: np.random.Generator, how: Training) -> tuple[np.ndarray, np.ndarray]:
    """First states and groups of a batch, `[episodes]` each: the episodes of a group play one task."""
    group_E = np.repeat(np.arange(how.groups), how.group_size)
    return chance.choice(tables.tasks, how.groups)[group_E], group_E


def warm_policy(game: Game, plans: bool, seed: int, how: Training) -> Policy:
    """A policy that copies a scripted player who makes mistakes; made once for equal arguments, and copied."""
    return deepcopy(_warm_policy(game, plans, seed, how))


@lru_cache(maxsize=8)
def _warm_policy(game: Game, plans: bool, seed: int, how: Training) -> Policy:
    torch.manual_seed(seed)
    tables = compile_house(game.house, plans)
    chance = np.random.default_rng((seed, 0))
    planned = compile_house(game.house, True)
    habits = {"misread": game.misread, "slip": game.slip, "whim": game.whim, "repeat": game.repeat}
    player = ScriptedPlayer(planned, chance, **habits)
    shown = play(planned, chance.choice(planned.tasks, how.demonstrations), player)
    decided, features = _Decisions.of(tables, shown, game.sees_kept, plans).compact(tables.features)
    policy = Policy(tables.features.shape[1], game.house)
    adam = torch.optim.Adam(policy.parameters(), lr=how.warm_lr, fused=True)
    for _ in range(how.warm_steps):
        log_probs, _ = decided.log_probs(policy, features)
        loss = -(log_probs * decided.mask).sum() / decided.mask.sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return policy


def turn_grids(played: Played, group_E: np.ndarray, values: Tensor | None) -> TurnGrids:
    """Episodes as the estimators want them. Every reply is well formed and every KEEP a perfect copy."""
    valid = played.tensor("valid")
    return TurnGrids(
        rewards=played.tensor("reward"),
        valid=valid,
        boundary=played.tensor("boundary"),
        copied_exactly=valid,
        comparable=valid,
        well_formed=valid,
        admissible=played.tensor("admissible"),
        terminated=played.tensor("terminated"),
        anchor=played.tensor("observation"),
        group=torch.from_numpy(group_E),
        switch_probability=played.tensor("switch_probability").float(),
        values=values,
    )


def credit(turns: TurnGrids, arm: Arm) -> tuple[Estimate, Tensor]:
    """The estimate, and what the policy loss gets: `[episodes, turns, 3]`, switch, sub-goal, action."""
    if arm.estimator.name == "gae":
        found = _verls_gae(turns, arm)
        advantage = whiten(found.action, turns.valid)
        return found, torch.stack([advantage, advantage * turns.opens, advantage], dim=-1)
    found = estimate(turns, arm.estimator)
    return found, torch.stack(whitened(turns, found, arm.estimator), dim=-1)


def _verls_gae(turns: TurnGrids, arm: Arm) -> Estimate:
    shaped = shaped_rewards(
        turns.rewards, turns.boundary, turns.valid, turns.well_formed, turns.admissible, turns.copied_exactly,
        turns.comparable, arm.estimator.shaping,
    )  # fmt: skip
    return_ET = shaped.rewards.sum(dim=1, keepdim=True) * turns.valid
    advantage = (return_ET - turns.values[..., Head.HIGH]) * turns.valid
    targets, has_target = torch.zeros_like(turns.values), torch.zeros_like(turns.values, dtype=torch.bool)
    targets[..., Head.HIGH], has_target[..., Head.HIGH] = return_ET, turns.valid
    return Estimate(shaped, advantage, advantage * turns.opens, advantage, targets, has_target)


@dataclass(frozen=True)
class _Decisions:
    """Every decision of some turns, `[turns, 3]`: the prompt it is made at, the choice, and whether there is one."""

    prompt: Tensor
    choice: Tensor
    mask: Tensor

    @classmethod
    def of(cls, tables: Tables, played: Played, sees_kept: bool, plans: bool, free: bool = True) -> _Decisions:
        valid = played.valid
        seen, kept, in_force = played.observation[valid], played.kept[valid], played.subgoal[valid]
        shown = kept if sees_kept else np.full_like(kept, NONE)
        prompt = np.stack([tables.prompt[seen, subgoal] for subgoal in (kept, shown, in_force)], axis=-1)
        boundary = played.boundary[valid]
        # On a boundary the written sub-goal is in force.
        choice = np.stack([played.switch[valid], np.where(boundary, in_force - 1, 0), played.action[valid]], axis=-1)
        mask = np.stack([np.full_like(boundary, plans and free), boundary & plans, np.ones_like(boundary)], axis=-1)
        return cls(torch.from_numpy(prompt), torch.from_numpy(choice), torch.from_numpy(mask))

    def compact(self, features: Tensor) -> tuple[_Decisions, Tensor]:
        """The same with the prompts renumbered, and the features of those that occur."""
        occurs, prompt = torch.unique(self.prompt, return_inverse=True)
        return _Decisions(prompt, self.choice, self.mask), features[occurs]

    def rows(self, index: Tensor) -> _Decisions:
        return _Decisions(self.prompt[index], self.choice[index], self.mask[index])

    def log_probs(self, policy: Policy, features: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each choice and entropy of its distribution, `[turns, 3]`."""
        logits = policy(features)
        chosen, entropies = [], []
        for index, table in enumerate((logits.switch, logits.subgoal, logits.action)):
            chosen.append(table[self.prompt[:, index], self.choice[:, index]])
            entropies.append(-(table.exp() * table).sum(dim=-1)[self.prompt[:, index]])
        return torch.stack(chosen, dim=-1), torch.stack(entropies, dim=-1)


def value_prompts(tables: Tables, played: Played, arm: Arm, sees_kept: bool) -> Tensor:
    """Where each value is read, `[episodes, turns, 3]` by `credit.Head`.

    The planner's value is read at what the planner sees. A single head is the value of the turn and reads the prompt.
    """
    seen = played.observation
    before = tables.prompt[seen, played.kept]
    high = before if arm.heads == 1 or sees_kept else tables.prompt[seen, np.full_like(seen, NONE)]
    return torch.from_numpy(np.stack([high, tables.prompt[seen, played.subgoal], before], axis=-1))


def _update_critic(
    critic: Critic, adam, features: Tensor, prompts: Tensor, found: Estimate, arm: Arm, how: Training
) -> None:
    valid = found.has_target.any(dim=-1)
    occurs, prompt = torch.unique(prompts[valid], return_inverse=True)
    features, target, mask = features[occurs], found.targets[valid].float(), found.has_target[valid]
    for _ in range(arm.critic_epochs):
        for rows in torch.randperm(len(prompt)).chunk(how.mini_batches):
            error = (critic(features, prompt[rows]) - target[rows]) ** 2 * mask[rows]
            loss = 0.5 * (error.sum(dim=0) / mask[rows].sum(dim=0).clamp(min=1)).sum()
            _step(critic, adam, loss, how.grad_clip)


def _update_policy(
    policy: Policy, adam, tables: Tables, played: Played, advantages: Tensor, game: Game, arm: Arm, how: Training
) -> list[float]:
    """Clipped PPO, a mean over all decisions of a mini-batch. Returns the mean entropy of each kind of decision."""
    decided = _Decisions.of(tables, played, game.sees_kept, arm.plans, free=arm.forced is None)
    decided, features = decided.compact(tables.features)
    advantage = advantages[played.tensor("valid")].float()
    with torch.no_grad():
        old, entropies = decided.log_probs(policy, features)
    for rows in torch.randperm(len(old)).chunk(how.mini_batches):
        part = decided.rows(rows)
        new, entropy = part.log_probs(policy, features)
        ratio = (new - old[rows]).exp()
        gain = torch.minimum(ratio * advantage[rows], ratio.clamp(1 - how.clip, 1 + how.clip) * advantage[rows])
        loss = -((gain + how.entropy * entropy) * part.mask).sum() / part.mask.sum()
        _step(policy, adam, loss, how.grad_clip)
    return ((entropies * decided.mask).sum(dim=0) / decided.mask.sum(dim=0).clamp(min=1)).tolist()


def _step(module: torch.nn.Module, adam, loss: Tensor, grad_clip: float) -> None:
    adam.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), grad_clip)
    adam.step()


def _note(
    curve: Curve, played: Played, values: Tensor | None, found: Estimate, entropies: list[float], gamma: float
) -> None:
    curve.success.append(float(played.won.mean()))
    curve.turns.append(float(played.valid.sum(axis=1).mean()))
    curve.switch_rate.append(played.switch_rate)
    curve.segment_length.append(played.segment_length)
    curve.entropy.append(entropies)
    explained = [float("nan")] * len(Head)
    if values is not None:
        explained = [
            explained_variance(values[..., slot], found.targets[..., slot], found.has_target[..., slot])
            for slot in Head
        ]
    curve.explained.append(explained)
    later = played.boundary.copy()
    later[:, 0] = False
    # All of the reward is the last turn's.
    left = played.valid.sum(axis=1, keepdims=True) - 1 - np.arange(played.valid.shape[1])
    earned = played.reward.sum(axis=1, keepdims=True) * gamma**left
    there = later.any()
    curve.earned.append(float(earned[later].mean()) if there else float("nan"))
    has_values = there and values is not None
    curve.expected.append(float(values[..., Head.HIGH].numpy()[later].mean()) if has_values else float("nan"))
