# SPDX-License-Identifier: Apache-2.0
"""What every run logs about its episodes, its credit and its hierarchy. Pure functions of a batch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from agent_system.environments.base import StopReason
from agent_system.rollout.records import TurnRecord
from recipe.hiper.estimators.values import ValueSlot, explained_variance
from recipe.hiper.trainer.token_credit import BatchCredit
from recipe.hiper.trainer.turn_batch import BatchTurns

SEGMENT_BINS = (1, 2, 3, 5, 9)
"""Lower edges of the segment-length histogram; the last bin is open."""


def _mean(values) -> float:
    values = list(values)
    return float(sum(values) / len(values)) if values else float("nan")


def _has_subgoals(records: Iterable[TurnRecord]) -> bool:
    return any(record.switch for record in records)


def episode_metrics(turns: BatchTurns) -> dict[str, float]:
    """Success, length, decisions and format over the episodes of a batch; names without prefix.

    `repeated_miss_fraction`: turns that repeat an inadmissible action, word for word, right after it had no effect.
    Misses of that kind are a loop, the others single errors; they need different remedies.
    Fractions are over turns unless the name shows otherwise. `success_rate/<kind>` splits by the kind of task. A flat
    agent has no `switch_rate` and no `keep_copied_fraction`.
    """
    episodes = [[turns.records[row] for row in rows] for rows in turns.episodes()]
    last = [episode[-1] for episode in episodes]
    played = [turn for episode in episodes for turn in episode]
    later = [turn for episode in episodes for turn in episode[1:]]
    keeps = [turn for turn in later if not turn.boundary and turn.comparable]
    by_kind = defaultdict(list)
    for turn in last:
        by_kind[turn.kind].append(turn.won)
    generations = len(played) + sum(turns.generations_after_end)
    result = {
        "success_rate": _mean(turn.won for turn in last),
        "score": _mean(turn.score for turn in last),
        "return": _mean(sum(turn.reward for turn in episode) for episode in episodes),
        "episodes": float(len(episodes)),
        "turns": float(len(played)),
        "episode_length": _mean(len(episode) for episode in episodes),
        "admissible_fraction": _mean(turn.admissible for turn in played),
        "repeated_miss_fraction": sum(
            not before.admissible and before.action == turn.action
            for episode in episodes
            for before, turn in pairwise(episode)
        )
        / len(played),
        "well_formed_fraction": _mean(turn.well_formed for turn in played),
        "cut_fraction": _mean(turn.cut for turn in played),
        "observation_cut_fraction": _mean(turn.observation_cut for turn in played),
        "generations_after_end_fraction": sum(turns.generations_after_end) / generations,
        **{f"success_rate/{kind}": _mean(won) for kind, won in sorted(by_kind.items())},
    }
    if _has_subgoals(played):
        result["switch_rate"] = _mean(turn.boundary for turn in later)
        result["keep_copied_fraction"] = _mean(turn.copied_exactly for turn in keeps)
    stops = Counter(turn.stop for turn in last)
    result.update({f"stop/{reason.value}": stops[reason.value] / len(last) for reason in StopReason})
    result.update({f"retries/{source}": float(turns.retries[source]) for source in ("environment", "engine")})
    problems = Counter(problem for turn in played for problem in turn.problems)
    result.update({f"problem/{name}": count / len(played) for name, count in sorted(problems.items())})
    return result


def hierarchy_metrics(turns: BatchTurns) -> dict[str, float]:
    """Is the hierarchy in use: segment lengths, novelty and reuse of sub-goals, and what keeping them costs.

    Nothing for a flat agent.

    `novel_subgoal_fraction`: segments whose sub-goal their episode has not had before.
    `reused_subgoal_fraction`: segments whose sub-goal is also opened, word for word, in an episode of another task of
    the batch. A sub-goal that only ever occurs in one task is not a reusable skill: near 0, the planner only
    rephrases the task; near 1, what the executor learns about a sub-goal serves many tasks. It grows with the number of
    tasks in a batch. An empty sub-goal is never counted as reused; for a batch with a single task the fraction is NaN.
    `copy_token_fraction`: of the tokens in blocks, those that write a kept sub-goal once more (see `env.short_keep`).
    """
    if not _has_subgoals(turns.records):
        return {}
    lengths: list[int] = []
    novel: list[bool] = []
    opened: list[tuple[str, str]] = []  # sub-goal and task of each segment
    for rows in turns.episodes():
        seen: set[str] = set()
        for row in rows:
            record = turns.records[row]
            if record.boundary:
                lengths.append(0)
                novel.append(record.subgoal_in_force not in seen)
                opened.append((record.subgoal_in_force, record.task_id))
                seen.add(record.subgoal_in_force)
            lengths[-1] += 1
    tokens_RB = (turns.spans[:, :, 1] - turns.spans[:, :, 0]) * turns.is_turn.unsqueeze(1)
    copies = int(tokens_RB[~turns.column("boundary"), 1].sum())
    tasks_of = Counter(subgoal for subgoal, _ in set(opened))
    has_others = len({task for _, task in opened}) > 1
    result = {
        "segment_length": _mean(lengths),
        "novel_subgoal_fraction": _mean(novel),
        "reused_subgoal_fraction": _mean(
            subgoal != "" and tasks_of[subgoal] > 1 for subgoal, _ in opened if has_others
        ),
        "copy_token_fraction": copies / max(int(tokens_RB.sum()), 1),
    }
    edges = (*SEGMENT_BINS, float("inf"))
    for start, end in pairwise(edges):
        fraction = _mean(start <= length < end for length in lengths)
        name = f"{start}" if end == start + 1 else f"{start}+" if end == float("inf") else f"{start}-{end - 1}"
        result[f"segment_length_fraction/{name}"] = fraction
    return result


def batch_metrics(turns: BatchTurns) -> dict[str, float]:
    """The metrics of a training batch, under `rollout/` and `hierarchy/`."""
    return {f"rollout/{name}": value for name, value in episode_metrics(turns).items()} | {
        f"hierarchy/{name}": value for name, value in hierarchy_metrics(turns).items()
    }


def validation_metrics(turns: BatchTurns) -> dict[str, float]:
    """The metrics of a held-out panel, under `val/`."""
    return {f"val/{name}": value for name, value in (episode_metrics(turns) | hierarchy_metrics(turns)).items()}


def _statistics(name: str, values: Tensor) -> dict[str, float]:
    if not len(values):
        return {}
    return {
        f"{name}/mean": float(values.mean()),
        f"{name}/std": float(values.std(unbiased=False)),
        f"{name}/abs_mean": float(values.abs().mean()),
        f"{name}/max": float(values.max()),
        f"{name}/min": float(values.min()),
    }


def credit_metrics(turns: BatchTurns, credit: BatchCredit) -> dict[str, float]:
    """Advantages by type of decision (before whitening), explained variance of each value on its own positions,
    the parts of the shaped reward and the probability of SWITCH."""
    grid = turns.grid
    opens = turns.on_grid("boundary") & grid.valid
    advantages = credit.turn_advantages
    result: dict[str, float] = {}
    decisions = (("switch", advantages.switch, grid.valid), ("subgoal", advantages.subgoal, opens))
    for name, advantage, mask in (
        *(decisions if credit.is_hierarchical else ()),
        ("action" if credit.is_hierarchical else "turn", advantages.action, grid.valid),
    ):
        result.update(_statistics(f"advantage/{name}", advantage[mask]))
    for slot in ValueSlot if credit.values is not None else ():
        assert credit.values is not None  # else there are no slots
        mask = credit.value_mask[:, slot].bool()
        name = slot.name.lower()
        result[f"critic/explained_variance_{name}"] = explained_variance(
            credit.values[:, slot], credit.value_targets[:, slot], mask
        )
        if mask.any():
            result[f"critic/value_{name}/mean"] = float(credit.values[mask, slot].mean())
            result[f"critic/target_{name}/mean"] = float(credit.value_targets[mask, slot].mean())
    episodes = len(grid.valid)
    shaped = advantages.shaped
    result["shaping/format_penalty"] = float(shaped.format_penalty.sum() / episodes)
    result["shaping/inadmissible_penalty"] = float(shaped.inadmissible_penalty.sum() / episodes)
    result["shaping/keep_penalty"] = float(shaped.keep_penalty.sum() / episodes)
    result["shaping/consistency_penalty"] = float(shaped.consistency_penalty.sum() / episodes)
    later = grid.to_rows(grid.valid & (torch.arange(grid.valid.shape[1]) > 0))
    if later.any() and _has_subgoals(turns.records):
        result["hierarchy/switch_probability"] = float(credit.switch_probability[later].mean())
    tokens = credit.credit_mask.sum(dim=1)[turns.is_turn].float()
    result["actor/trained_tokens_per_turn"] = float(tokens.mean())
    return result


def entropy_metrics(turns: BatchTurns, entropy_RL: Tensor) -> dict[str, float]:
    """Entropy by type of decision: nats a block (summed over its tokens), averaged over the turns that write one.

    `entropy/subgoal` is over the turns that open a segment, `entropy/subgoal_copy` over those that repeat a sub-goal.
    What all turns of a type lack a block for (a flat agent's sub-goal) is left out.

    Args:
        entropy_RL: entropy of the policy before the update at each response token, `[rows, tokens]`.
    """
    position = torch.arange(entropy_RL.shape[1])
    opens = turns.column("boundary")
    blocks = {
        "switch": (0, turns.is_turn),
        "subgoal": (1, turns.is_turn & opens),
        "subgoal_copy": (1, turns.is_turn & ~opens),
        "action": (2, turns.is_turn),
    }
    result = {}
    for name, (block, of_type) in blocks.items():
        start, end = turns.spans[:, block, :1], turns.spans[:, block, 1:]
        written = of_type & (start < end).squeeze(1)
        if written.any():
            nats = (entropy_RL * ((position >= start) & (position < end))).sum(dim=1)
            result[f"entropy/{name}"] = float(nats[written].mean())
    return result
