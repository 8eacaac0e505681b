# SPDX-License-Identifier: Apache-2.0
"""A plan-execute decision process that is small enough for exact values and an exact policy gradient.

It answers what no training run can: is an estimator of the gradient right on average, and how much does it vary? A few
states, two sub-goals and two actions; rewards are noisy, an episode lasts `horizon` turns. The policy is tabular:

    pi(q_t = SWITCH | s_t, o_{t-1}) = sigmoid(switch[s, o]),  pi(o_t | s_t) = softmax(subgoal[s]),
    pi(a_t | s_t, o_t) = softmax(action[s, o]);   turn 0 opens a segment without a decision

Values follow from Bellman's equations backwards from the horizon, in float64, and the gradient of the expected return
by differentiating them. Notation as in `hae`; U is the value before the switch decision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recipe.hiper.estimators.hae import HAEConfig, hierarchical_advantages


@dataclass(frozen=True)
class TabularPolicy:
    """Logits: `switch` `[states, subgoals]`, `subgoal` `[states, subgoals]`, `action` `[states, subgoals, actions]`."""

    switch: Tensor
    subgoal: Tensor
    action: Tensor

    def parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three tables."""
        return self.switch, self.subgoal, self.action


@dataclass(frozen=True)
class TabularTask:
    """The process.

    Attributes:
        start: probabilities of the first state, `[states]`.
        transition: P(s' | s, a), `[states, actions, states]`.
        reward: mean reward of (s, a), `[states, actions]`.
        noise: standard deviation of the rewards.
        horizon: turns of an episode.
        gamma: discount per turn.
    """

    start: Tensor
    transition: Tensor
    reward: Tensor
    noise: float
    horizon: int
    gamma: float


@dataclass(frozen=True)
class TabularValues:
    """Values by turn: `high` `[turns, states]`; `low` and `before` (U) `[turns, states, subgoals]`."""

    high: Tensor
    low: Tensor
    before: Tensor


@dataclass(frozen=True)
class TabularEpisodes:
    """Sampled episodes, each tensor `[episodes, turns]`: states, the sub-goal before and after the switch decision,
    whether a segment opens, actions and rewards."""

    state: Tensor
    kept: Tensor
    subgoal: Tensor
    boundary: Tensor
    action: Tensor
    reward: Tensor


def make_task(seed: int, *, states: int = 3, horizon: int = 8, noise: float = 1.0, gamma: float = 1.0) -> TabularTask:
    """A random task of two sub-goals and two actions."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    return TabularTask(
        start=draw(states).softmax(-1),
        transition=(1.5 * draw(states, 2, states)).softmax(-1),
        reward=draw(states, 2),
        noise=noise,
        horizon=horizon,
        gamma=gamma,
    )


def make_policy(seed: int, *, states: int = 3, switch_bias: float = -1.0) -> TabularPolicy:
    """A random policy; the lower `switch_bias`, the longer its segments."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    return TabularPolicy(draw(states, 2) + switch_bias, draw(states, 2), draw(states, 2, 2))


def exact_values(task: TabularTask, policy: TabularPolicy) -> TabularValues:
    """Bellman's equations, backwards from the horizon; differentiable in the policy.

    V_lo(s, o) = sum_a pi(a) (r + gamma sum_s' P U(s', o)),  V_hi(s) = sum_o pi(o) V_lo(s, o),
    U(s, o) = beta V_hi(s) + (1 - beta) V_lo(s, o)
    """
    beta, pi_o, pi_a = policy.switch.sigmoid(), policy.subgoal.softmax(-1), policy.action.softmax(-1)
    before = torch.zeros_like(policy.switch)
    columns = []
    for _ in range(task.horizon):
        q_soa = task.reward[:, None, :] + task.gamma * torch.einsum("saz,zo->soa", task.transition, before)
        low = (pi_a * q_soa).sum(-1)
        high = (pi_o * low).sum(-1)
        before = beta * high[:, None] + (1 - beta) * low
        columns.append((high, low, before))
    high, low, before = (torch.stack(column) for column in zip(*reversed(columns), strict=True))
    return TabularValues(high, low, before)


def exact_gradient(task: TabularTask, policy: TabularPolicy) -> Tensor:
    """Gradient of the expected return in all parameters, one flat vector."""
    free = TabularPolicy(*(table.clone().requires_grad_() for table in policy.parameters()))
    value = (task.start * exact_values(task, free).high[0]).sum()
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(value, free.parameters())])


def sample(task: TabularTask, policy: TabularPolicy, episodes: int, seed: int) -> TabularEpisodes:
    """Play episodes."""
    rng = torch.Generator().manual_seed(seed)

    def pick(probabilities: Tensor) -> Tensor:
        return torch.multinomial(probabilities, 1, generator=rng).squeeze(1)

    beta, pi_o, pi_a = policy.switch.sigmoid(), policy.subgoal.softmax(-1), policy.action.softmax(-1)
    state = pick(task.start.expand(episodes, -1))
    subgoal = torch.zeros_like(state)
    turns = []
    for turn in range(task.horizon):
        kept = subgoal
        opens = torch.rand(episodes, generator=rng, dtype=torch.float64) < beta[state, kept]
        if turn == 0:
            opens = torch.ones_like(opens)
        subgoal = torch.where(opens, pick(pi_o[state]), kept)
        action = pick(pi_a[state, subgoal])
        noise = torch.randn(episodes, generator=rng, dtype=torch.float64)
        turns.append((state, kept, subgoal, opens, action, task.reward[state, action] + task.noise * noise))
        state = pick(task.transition[state, action])
    return TabularEpisodes(*(torch.stack(column, dim=1) for column in zip(*turns, strict=True)))


@dataclass(frozen=True)
class DecisionAdvantages:
    """One advantage for each decision, `[episodes, turns]`: switch, sub-goal (read at boundaries) and action."""

    switch: Tensor
    subgoal: Tensor
    action: Tensor


def hae_advantages(
    task: TabularTask, policy: TabularPolicy, played: TabularEpisodes, values: TabularValues, config: HAEConfig
) -> DecisionAdvantages:
    """HAE, by the recipe's own function, with these values."""
    turn = torch.arange(task.horizon)
    valid = torch.ones_like(played.boundary)
    terminated = torch.zeros_like(valid)
    terminated[:, -1] = True
    low_before = values.low[turn, played.state, played.kept]
    high = values.high[turn, played.state]
    low_before[:, 0] = high[:, 0]  # nothing to keep on turn 0
    estimated = hierarchical_advantages(
        played.reward,
        values.low[turn, played.state, played.subgoal],
        high,
        values.before[turn, played.state, played.kept],
        played.boundary,
        valid,
        terminated,
        config,
        switch_prob=policy.switch.sigmoid()[played.state, played.kept],
        values_low_prev=low_before,
    )
    return DecisionAdvantages(estimated.adv_switch, estimated.adv_high, estimated.adv_low)


def turn_advantages(
    task: TabularTask, played: TabularEpisodes, values: TabularValues, lam: float
) -> DecisionAdvantages:
    """Flat GAE over turns: one value U before anything is written, one advantage for all that the turn decides."""
    value = _first_values(played, values)
    after = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], dim=1)
    advantage = _gae(played.reward + task.gamma * after - value, task.gamma * lam)
    return DecisionAdvantages(advantage, advantage, advantage)


def token_advantages(
    task: TabularTask, played: TabularEpisodes, values: TabularValues, lam: float
) -> DecisionAdvantages:
    """Flat GAE over tokens, one token a decision: values before the switch word, before the sub-goal and before the
    action, the reward on the action. The discount acts between turns, lambda between tokens; a kept sub-goal is a copy
    and no token."""
    turn = torch.arange(task.horizon)
    first = _first_values(played, values)
    low = values.low[turn, played.state, played.subgoal]
    high = values.high[turn, played.state]
    carry = torch.zeros_like(first[:, 0])
    switch, subgoal, action = (torch.zeros_like(first) for _ in range(3))
    for t in reversed(range(task.horizon)):
        last = t == task.horizon - 1
        after = torch.zeros_like(carry) if last else first[:, t + 1]
        action[:, t] = played.reward[:, t] + task.gamma * after - low[:, t] + task.gamma * lam * carry
        subgoal[:, t] = low[:, t] - high[:, t] + lam * action[:, t]
        opens = played.boundary[:, t]
        switched = high[:, t] - first[:, t] + lam * subgoal[:, t]
        switch[:, t] = torch.where(opens, switched, low[:, t] - first[:, t] + lam * action[:, t])
        carry = switch[:, t]
    return DecisionAdvantages(switch, subgoal, action)


def episode_gradients(
    policy: TabularPolicy, played: TabularEpisodes, advantages: DecisionAdvantages, gamma: float = 1.0
) -> Tensor:
    """Each episode's estimate of the gradient, `[episodes, parameters]`, in the order of `exact_gradient`.

    sum_t gamma^t (grad log pi(q_t) A_sw (not on turn 0)  +  [boundary] grad log pi(o_t) A_hi  +  grad log pi(a_t) A_lo)

    Args:
        gamma: the task's. PPO leaves gamma^t out, and then follows the gradient of no objective at all (Nota and
            Thomas, "Is the policy gradient a gradient?", 2020): 1.0 shows by how much.
    """
    episodes, turns = played.state.shape
    row = torch.arange(episodes)
    switch, subgoal, action = (torch.zeros(episodes, *table.shape, dtype=table.dtype) for table in policy.parameters())
    beta, pi_o, pi_a = policy.switch.sigmoid(), policy.subgoal.softmax(-1), policy.action.softmax(-1)
    advantages = DecisionAdvantages(*(table * gamma ** torch.arange(turns) for table in vars(advantages).values()))
    for t in range(turns):
        s, kept, o, a = played.state[:, t], played.kept[:, t], played.subgoal[:, t], played.action[:, t]
        opens = played.boundary[:, t].to(beta.dtype)
        if t > 0:
            switch[row, s, kept] += (opens - beta[s, kept]) * advantages.switch[:, t]
        weight = opens * advantages.subgoal[:, t]
        subgoal[row, s] -= weight[:, None] * pi_o[s]
        subgoal[row, s, o] += weight
        action[row, s, o] -= advantages.action[:, t, None] * pi_a[s, o]
        action[row, s, o, a] += advantages.action[:, t]
    return torch.cat([switch.flatten(1), subgoal.flatten(1), action.flatten(1)], dim=1)


@dataclass(frozen=True)
class Mismatch:
    """The mean estimate against the exact gradient.

    Attributes:
        relative_bias: distance of the two over the length of the exact one, noise included.
        noise: what of that is to be expected of an estimator that is right on average.
        p_value: probability that such an estimator is as far off (Hotelling's test, chi-squared).
        dimensions: directions in which the estimates vary at all.
        variance: total variance of one episode's estimate.
    """

    relative_bias: float
    noise: float
    p_value: float
    dimensions: int
    variance: float


def mismatch(estimates: Tensor, exact: Tensor) -> Mismatch:
    """Compare episodes' estimates, `[episodes, parameters]`, with the exact gradient."""
    covariance = torch.cov(estimates.T)
    offset = estimates.mean(0) - exact
    # Probabilities that sum to one leave directions in which nothing varies.
    sizes, directions = torch.linalg.eigh(covariance)
    varying = sizes > 1e-9 * sizes.max()
    along = (offset @ directions)[varying]
    statistic = len(estimates) * (along**2 / sizes[varying]).sum()
    dimensions = int(varying.sum())
    half = torch.tensor(dimensions / 2, dtype=torch.float64)
    variance = float(covariance.trace())
    return Mismatch(
        relative_bias=float(offset.norm() / exact.norm()),
        noise=(variance / len(estimates)) ** 0.5 / float(exact.norm()),
        p_value=float(torch.special.gammaincc(half, statistic / 2)),
        dimensions=dimensions,
        variance=variance,
    )


def disturbed(values: TabularValues, spread: float, seed: int) -> TabularValues:
    """Wrong values: independent errors of standard deviation `spread` in every entry."""
    rng = torch.Generator().manual_seed(seed)
    return replace(
        values,
        **{
            name: table + spread * torch.randn(table.shape, generator=rng, dtype=table.dtype)
            for name, table in vars(values).items()
        },
    )


def _first_values(played: TabularEpisodes, values: TabularValues) -> Tensor:
    """The value before anything is written; on turn 0, which opens a segment without a decision, the planner's."""
    turn = torch.arange(played.state.shape[1])
    value = values.before[turn, played.state, played.kept]
    value[:, 0] = values.high[0, played.state[:, 0]]
    return value


def _gae(delta: Tensor, decay: float) -> Tensor:
    advantage = torch.zeros_like(delta)
    carry = torch.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        carry = delta[:, t] + decay * carry
        advantage[:, t] = carry
    return advantage
