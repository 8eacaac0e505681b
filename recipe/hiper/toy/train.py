# SPDX-License-Identifier: Apache-2.0
"""PPO on the errand game: warm start, then iterations of play, estimate and update, as the trainer's are.

The only estimator that is computed here is verl's `gae`, which knows nothing of turns: it gives every reply of an
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

from recipe.hiper.estimators.registry import (
    TurnAdvantages,
    TurnGrids,
    estimate_advantages,
    find_estimator,
    whiten_advantages,
)
from recipe.hiper.estimators.shaping import shaped_rewards
from recipe.hiper.estimators.values import ValueSlot, explained_variance
from recipe.hiper.estimators.whitening import whiten
from recipe.hiper.toy.agent import Critic, Policy
from recipe.hiper.toy.game import House
from recipe.hiper.toy.play import EpisodeBatch, LearnedPlayer, ScriptedPlayer, play
from recipe.hiper.toy.tables import NONE, Tables, compile_house
from recipe.hiper.toy.variants import Variant


@dataclass(frozen=True)
class Training:
    """How long and how fast.

    Attributes:
        iterations: of `groups` * `group_size` episodes each; a group plays one task.
        critic_only: iterations in which only the critic learns (`trainer.critic_warmup`); where there is none, none.
        mini_batches: of a pass over the batch; one pass of the policy, `Variant.critic_epochs` of the critic.
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


def train(game: Game, variant: Variant, seed: int, training: Training = Training()) -> Curve:
    """One run. Runs of one seed start from the same policy and play the same tasks, for every estimator."""
    started = time.perf_counter()
    tables = compile_house(game.house, variant.plans)
    policy = warm_policy(game, variant.plans, seed, training)
    torch.manual_seed(seed)
    critic = Critic(tables.features.shape[1], variant.heads) if variant.heads else None
    policy_adam = torch.optim.Adam(policy.parameters(), lr=training.lr, fused=True)
    critic_adam = torch.optim.Adam(critic.parameters(), lr=training.critic_lr, fused=True) if critic else None
    rng, tasks = np.random.default_rng((seed, 1)), np.random.default_rng((seed, 2))
    curve = Curve()
    for iteration in range(training.iterations):
        tasks_E, group_E = draw_tasks(tables, tasks, training)
        player = LearnedPlayer(
            tables, policy, rng, sees_kept=game.sees_kept, plans=variant.plans, forced=variant.forced
        )
        batch = play(tables, tasks_E, player)
        prompts = value_prompts(tables, batch, variant, game.sees_kept)
        with torch.no_grad():
            values = critic(tables.features, prompts) if critic else None
        grids = turn_grids(batch, group_E, values)
        estimated, advantages = credit(grids, variant)
        if critic:
            _update_critic(critic, critic_adam, tables.features, prompts, estimated, variant, training)
        if iteration >= (training.critic_only if critic else 0):
            entropies = _update_policy(policy, policy_adam, tables, batch, advantages, game, variant, training)
        else:
            entropies = [float("nan")] * 3
        _record(curve, batch, values, estimated, entropies, variant.estimator.hae.gamma)
    curve.seconds = time.perf_counter() - started
    return curve


def draw_tasks(tables: Tables, rng: np.random.Generator, training: Training) -> tuple[np.ndarray, np.ndarray]:
    """First states and groups of a batch, `[episodes]` each: the episodes of a group play one task."""
    group_E = np.repeat(np.arange(training.groups), training.group_size)
    return rng.choice(tables.tasks, training.groups)[group_E], group_E


def warm_policy(game: Game, plans: bool, seed: int, training: Training) -> Policy:
    """A policy that copies a scripted player who makes mistakes; made once for equal arguments, and copied."""
    return deepcopy(_warm_policy(game, plans, seed, training))


@lru_cache(maxsize=8)
def _warm_policy(game: Game, plans: bool, seed: int, training: Training) -> Policy:
    torch.manual_seed(seed)
    tables = compile_house(game.house, plans)
    rng = np.random.default_rng((seed, 0))
    planned = compile_house(game.house, True)
    player = ScriptedPlayer(planned, rng, game.misread, game.slip, game.whim, game.repeat)
    shown = play(planned, rng.choice(planned.tasks, training.demonstrations), player)
    decided, features = _Decisions.of(tables, shown, game.sees_kept, plans).compact(tables.features)
    policy = Policy(tables.features.shape[1], game.house)
    adam = torch.optim.Adam(policy.parameters(), lr=training.warm_lr, fused=True)
    for _ in range(training.warm_steps):
        log_probs, _ = decided.log_probs(policy, features)
        loss = -(log_probs * decided.mask).sum() / decided.mask.sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return policy


def turn_grids(batch: EpisodeBatch, group_E: np.ndarray, values: Tensor | None) -> TurnGrids:
    """Episodes as the estimators want them. Every reply is well formed and every KEEP a perfect copy."""
    valid = batch.tensor("valid")
    return TurnGrids(
        rewards=batch.tensor("reward"),
        valid=valid,
        boundary=batch.tensor("boundary"),
        copied_exactly=valid,
        comparable=valid,
        well_formed=valid,
        admissible=batch.tensor("admissible"),
        terminated=batch.tensor("terminated"),
        anchor=batch.tensor("observation"),
        group=torch.from_numpy(group_E),
        switch_probability=batch.tensor("switch_probability").float(),
        values=values,
    )


def credit(turns: TurnGrids, variant: Variant) -> tuple[TurnAdvantages, Tensor]:
    """The estimate, and what the policy loss gets: `[episodes, turns, 3]`, switch, sub-goal, action."""
    if find_estimator(variant.estimator.name).is_verls_own:
        estimated = _verls_gae(turns, variant)
        advantage = whiten(estimated.action, turns.valid)
        return estimated, torch.stack([advantage, advantage * turns.opens, advantage], dim=-1)
    estimated = estimate_advantages(turns, variant.estimator)
    return estimated, torch.stack(whiten_advantages(turns, estimated, variant.estimator), dim=-1)


def _verls_gae(turns: TurnGrids, variant: Variant) -> TurnAdvantages:
    shaped = shaped_rewards(
        turns.rewards, turns.boundary, turns.valid, turns.well_formed, turns.admissible, turns.copied_exactly,
        turns.comparable, variant.estimator.shaping,
    )  # fmt: skip
    assert turns.values is not None  # `gae` has a critic
    return_ET = shaped.rewards.sum(dim=1, keepdim=True) * turns.valid
    advantage = (return_ET - turns.values[..., ValueSlot.HIGH]) * turns.valid
    targets, has_target = torch.zeros_like(turns.values), torch.zeros_like(turns.values, dtype=torch.bool)
    targets[..., ValueSlot.HIGH], has_target[..., ValueSlot.HIGH] = return_ET, turns.valid
    return TurnAdvantages(shaped, advantage, advantage * turns.opens, advantage, targets, has_target)


@dataclass(frozen=True)
class _Decisions:
    """Every decision of some turns, `[turns, 3]`: the prompt it is made at, the choice, and whether there is one."""

    prompt: Tensor
    choice: Tensor
    mask: Tensor

    @classmethod
    def of(cls, tables: Tables, batch: EpisodeBatch, sees_kept: bool, plans: bool, free: bool = True) -> _Decisions:
        valid = batch.valid
        observation, kept, in_force = batch.observation[valid], batch.kept[valid], batch.subgoal[valid]
        shown = kept if sees_kept else np.full_like(kept, NONE)
        prompt = np.stack([tables.prompt[observation, subgoal] for subgoal in (kept, shown, in_force)], axis=-1)
        boundary = batch.boundary[valid]
        # On a boundary the written sub-goal is in force.
        choice = np.stack([batch.switch[valid], np.where(boundary, in_force - 1, 0), batch.action[valid]], axis=-1)
        mask = np.stack([np.full_like(boundary, plans and free), boundary & plans, np.ones_like(boundary)], axis=-1)
        return cls(torch.from_numpy(prompt), torch.from_numpy(choice), torch.from_numpy(mask))

    def compact(self, features: Tensor) -> tuple[_Decisions, Tensor]:
        """The same with prompts renumbered, and the features of those that occur."""
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


def value_prompts(tables: Tables, batch: EpisodeBatch, variant: Variant, sees_kept: bool) -> Tensor:
    """Where each value is read, `[episodes, turns, 3]` by `ValueSlot`.

    The planner's value is read at what the planner sees. A single head is the value of the turn and reads the prompt.
    """
    observation = batch.observation
    before = tables.prompt[observation, batch.kept]
    high = before if variant.heads == 1 or sees_kept else tables.prompt[observation, np.full_like(observation, NONE)]
    return torch.from_numpy(np.stack([high, tables.prompt[observation, batch.subgoal], before], axis=-1))


def _update_critic(
    critic: Critic,
    adam,
    features: Tensor,
    prompts: Tensor,
    estimated: TurnAdvantages,
    variant: Variant,
    training: Training,
) -> None:
    valid = estimated.has_target.any(dim=-1)
    occurs, prompt = torch.unique(prompts[valid], return_inverse=True)
    features, target, mask = features[occurs], estimated.targets[valid].float(), estimated.has_target[valid]
    for _ in range(variant.critic_epochs):
        for rows in torch.randperm(len(prompt)).chunk(training.mini_batches):
            error = (critic(features, prompt[rows]) - target[rows]) ** 2 * mask[rows]
            loss = 0.5 * (error.sum(dim=0) / mask[rows].sum(dim=0).clamp(min=1)).sum()
            _step(critic, adam, loss, training.grad_clip)


def _update_policy(
    policy: Policy,
    adam,
    tables: Tables,
    batch: EpisodeBatch,
    advantages: Tensor,
    game: Game,
    variant: Variant,
    training: Training,
) -> list[float]:
    """Clipped PPO, a mean over all decisions of a mini-batch. Returns the mean entropy of each kind of decision."""
    decided = _Decisions.of(tables, batch, game.sees_kept, variant.plans, free=variant.forced is None)
    decided, features = decided.compact(tables.features)
    advantage = advantages[batch.tensor("valid")].float()
    with torch.no_grad():
        old, entropies = decided.log_probs(policy, features)
    for rows in torch.randperm(len(old)).chunk(training.mini_batches):
        part = decided.rows(rows)
        new, entropy = part.log_probs(policy, features)
        ratio = (new - old[rows]).exp()
        gain = torch.minimum(
            ratio * advantage[rows], ratio.clamp(1 - training.clip, 1 + training.clip) * advantage[rows]
        )
        loss = -((gain + training.entropy * entropy) * part.mask).sum() / part.mask.sum()
        _step(policy, adam, loss, training.grad_clip)
    return ((entropies * decided.mask).sum(dim=0) / decided.mask.sum(dim=0).clamp(min=1)).tolist()


def _step(module: torch.nn.Module, adam, loss: Tensor, grad_clip: float) -> None:
    adam.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), grad_clip)
    adam.step()


def _record(
    curve: Curve,
    batch: EpisodeBatch,
    values: Tensor | None,
    estimated: TurnAdvantages,
    entropies: list[float],
    gamma: float,
) -> None:
    curve.success.append(float(batch.won.mean()))
    curve.turns.append(float(batch.valid.sum(axis=1).mean()))
    curve.switch_rate.append(batch.switch_rate)
    curve.segment_length.append(batch.segment_length)
    curve.entropy.append(entropies)
    explained = [float("nan")] * len(ValueSlot)
    if values is not None:
        explained = [
            explained_variance(values[..., slot], estimated.targets[..., slot], estimated.has_target[..., slot])
            for slot in ValueSlot
        ]
    curve.explained.append(explained)
    later = batch.boundary.copy()
    later[:, 0] = False
    # All of the reward is the last turn's.
    left = batch.valid.sum(axis=1, keepdims=True) - 1 - np.arange(batch.valid.shape[1])
    earned = batch.reward.sum(axis=1, keepdims=True) * gamma**left
    has_later = later.any()
    curve.earned.append(float(earned[later].mean()) if has_later else float("nan"))
    expected = float("nan")
    if has_later and values is not None:
        expected = float(values[..., ValueSlot.HIGH].numpy()[later].mean())
    curve.expected.append(expected)
