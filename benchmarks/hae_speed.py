# SPDX-License-Identifier: Apache-2.0
"""How long credit assignment takes: reading the values, shaping, HAE, whitening, token advantages, loss mask and value
targets of one batch.

    python benchmarks/hae_speed.py            # 128 episodes x 50 turns x 128 tokens

Times what the trainer calls (`values.read_slots`, `token_credit.batch_credit`) and, in the same run, a Python loop over
rows and tokens that does the same arithmetic on lists, and checks that both give the same numbers. The rows are
shuffled, as they are in training. Times are CPU time, so other programs on the machine disturb them little.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent_system.plan_execute.protocol import Problem
from agent_system.rollout.records import TurnRecord
from recipe.hiper.configuration.settings import CheckpointSettings, HiPERSettings
from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.estimators.registry import EstimatorConfig
from recipe.hiper.estimators.shaping import ShapingConfig
from recipe.hiper.estimators.values import ValueSlot, read_slots
from recipe.hiper.trainer.token_credit import batch_credit
from recipe.hiper.trainer.turn_batch import BatchTurns

SETTINGS = HiPERSettings(
    estimator=EstimatorConfig(
        name="hae",
        hae=HAEConfig(gamma=0.99, lam_turn=0.95, lam_seg=0.9),
        shaping=ShapingConfig(invalid_action_penalty_coef=0.1, keep_penalty=-0.3, keep_consistency_penalty=-0.3),
    ),
    regularize_copies=False,
    random_signs=False,
    num_heads=3,
    value_coefficients=(1.0, 1.0, 1.0),
    updates_per_step=None,
    checkpoints=CheckpointSettings(keep=None, save_best=False, stop_when_full=True),
    poll_interval=0.05,
)
AT_LEAST_ONE = ("episodes", "turns", "repeats", "loop_repeats", "threads")
TOLERANCE = 1e-4
"""The trainer's batch is float32, the loop's lists are float64."""
COMPARED = ("token_advantages", "credit_mask", "value_targets", "value_mask", "switch_probability")


@dataclass(frozen=True)
class Batch:
    """One batch as the trainer holds it: a row per turn, in any order."""

    turns: BatchTurns
    heads: list[Tensor]
    """Values of each head, `[rows, tokens]`."""
    log_probs: Tensor
    """`[rows, tokens]`."""


def make_batch(episodes: int, turns: int, tokens: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    rows = episodes * turns
    order = torch.randperm(rows, generator=generator).tolist()
    cuts = torch.rand(rows, tokens, generator=generator).argsort(1)[:, :6].sort(1).values
    cuts[:, 0] = 0
    spans = cuts.view(rows, 3, 2).tolist()
    rewards = torch.randn(rows, generator=generator).tolist()
    opens, malformed, drifts, unreadable = (torch.rand(4, rows, generator=generator) < 0.3).tolist()
    keys, fields = [], []
    for row, cell in enumerate(order):
        episode, turn = divmod(cell, turns)
        boundary = opens[row] or turn == 0
        problem = Problem.UNKNOWN_SWITCH if unreadable[row] else Problem.TEXT_OUTSIDE
        record = TurnRecord(
            task_id=f"task-{episode}",
            kind="pick_and_place_simple",
            split="train",
            turn=turn,
            prompt="",
            reply="",
            observation="",
            switch="SWITCH" if boundary else "KEEP",
            subgoal="find mug",
            action="look",
            problems=(problem.value,) if malformed[row] else (),
            boundary=boundary,
            subgoal_in_force="find mug",
            copied_exactly=not boundary and not drifts[row],
            comparable=True,
            admissible=True,
            reward=rewards[row],
            terminated=turn == turns - 1,
            truncated=False,
            stop="",
            won=False,
            score=0.0,
            spans=tuple((start, end) for start, end in spans[row]),  # type: ignore[arg-type]  # three of them
            value_low=spans[row][1][1],
            dropped_turns=0,
            observation_cut=False,
        )
        keys.append(f"task-{episode}_0_{turn}")
        fields.append(record.to_fields())
    return Batch(
        turns=BatchTurns.from_fields(keys, [False] * rows, fields),
        heads=list(torch.randn(3, rows, tokens, generator=generator)),
        log_probs=-torch.rand(rows, tokens, generator=generator) / tokens,
    )


def vectorised(batch: Batch) -> tuple[Tensor, ...]:
    """What the trainer does, in the order of `COMPARED`. Nothing that was read from the records before is kept."""
    turns = replace(batch.turns, grid=replace(batch.turns.grid))
    values = read_slots(batch.heads, turns.value_low)
    credit = batch_credit(turns, values, batch.log_probs, SETTINGS)
    return tuple(getattr(credit, name) for name in COMPARED)


@dataclass
class LoopBatch:
    """`Batch` as Python lists, converted outside the timed part."""

    records: list[TurnRecord]
    heads: list[list[list[float]]]
    log_probs: list[list[float]]


def whiten_list(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return [(value - mean) / (variance + 1e-8) ** 0.5 for value in values]


def shaped_reward(record: TurnRecord) -> float:
    shaping = SETTINGS.estimator.shaping
    reward = record.reward
    if record.problems:
        reward -= shaping.invalid_action_penalty_coef
    if not record.boundary and record.turn > 0:
        reward += shaping.keep_penalty
        if not record.copied_exactly and record.comparable:
            reward += shaping.keep_consistency_penalty
    return reward


def written_switch(record: TurnRecord, log_probs: list[float]) -> float:
    if Problem.UNKNOWN_SWITCH.value in record.problems or Problem.MISSING_SWITCH.value in record.problems:
        return 0.0
    start, end = record.spans[0]
    written = math.exp(sum(log_probs[start:end]))
    return written if record.switch == "SWITCH" else 1.0 - written


def looped(batch: LoopBatch) -> tuple[list, ...]:
    """The same arithmetic, one row and one token at a time."""
    config = SETTINGS.estimator.hae
    gamma, lam_turn, lam_seg = config.gamma, config.lam_turn, config.lam_seg
    records = batch.records
    count, tokens = len(records), len(batch.log_probs[0])
    row_of = {(record.task_id, record.turn): row for row, record in enumerate(records)}
    low, high, switch, target_low, target_high, target_term = ([0.0] * count for _ in range(6))
    for row in sorted(range(count), key=lambda row: -records[row].turn):
        record = records[row]
        v_hi = batch.heads[ValueSlot.HIGH][row][0]
        v_term = batch.heads[ValueSlot.TERM][row][0]
        v_lo = batch.heads[ValueSlot.LOW][row][record.value_low]
        after = None if record.terminated else row_of.get((record.task_id, record.turn + 1))
        next_low = next_high = next_term = next_adv = 0.0
        if after is not None and records[after].boundary:
            next_low = next_term = batch.heads[ValueSlot.HIGH][after][0]
            next_high = next_low + lam_seg * (target_high[after] - next_low)
        elif after is not None:
            next_low = batch.heads[ValueSlot.LOW][after][records[after].value_low]
            next_high, next_term, next_adv = target_high[after], target_term[after], low[after]
        reward = shaped_reward(record)
        low[row] = reward + gamma * next_low - v_lo + gamma * lam_turn * next_adv
        target_low[row] = low[row] + v_lo
        target_high[row] = reward + gamma * next_high
        high[row] = target_high[row] - v_hi
        target_term[row] = reward + gamma * next_term
        switch[row] = target_term[row] - v_term

    switch, low = whiten_list(switch), whiten_list(low)
    opening = [row for row in range(count) if records[row].boundary]
    for row, value in zip(opening, whiten_list([high[row] for row in opening]), strict=True):
        high[row] = value

    advantages, credit_mask, targets, masks, probability = [], [], [], [], []
    for row, record in enumerate(records):
        token_advantages, in_mask = [], []
        (switch_start, switch_end), (subgoal_start, subgoal_end), (action_start, action_end) = record.spans
        for token in range(tokens):
            advantage, in_loss = 0.0, False
            if switch_start <= token < switch_end:
                advantage, in_loss = switch[row], True
            elif subgoal_start <= token < subgoal_end and record.boundary:
                advantage, in_loss = high[row], True
            elif action_start <= token < action_end:
                advantage, in_loss = low[row], True
            token_advantages.append(advantage)
            in_mask.append(in_loss)
        advantages.append(token_advantages)
        credit_mask.append(in_mask)
        targets.append([target_high[row] if record.boundary else 0.0, target_low[row], target_term[row]])
        masks.append([float(record.boundary), 1.0, 1.0])
        probability.append(written_switch(record, batch.log_probs[row]))
    return advantages, credit_mask, targets, masks, probability


def milliseconds(function: Callable[[], object], repeats: int) -> list[float]:
    times = []
    gc.disable()  # As `timeit` does: collecting the loop's lists takes longer than the loop and flatters the ratio.
    try:
        for _ in range(repeats):
            start = time.process_time()
            function()
            times.append(1e3 * (time.process_time() - start))
    finally:
        gc.enable()
    return times


def describe(name: str, times: list[float]) -> str:
    median = statistics.median(times)
    return f"{name}: median {median:.1f} ms of {len(times)} runs (from {min(times):.1f} to {max(times):.1f})"


def processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=128)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=128, help="response tokens of a turn, at least 6")
    parser.add_argument("--repeats", type=int, default=30, help="timed runs of the tensor functions")
    parser.add_argument("--loop-repeats", type=int, default=5, help="timed runs of the Python loop")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; the Python loop has one in any case")
    arguments = parser.parse_args()
    if arguments.tokens < 6 or min(vars(arguments)[name] for name in AT_LEAST_ONE) < 1:
        parser.error("--tokens must be at least 6, all other numbers at least 1")

    torch.set_num_threads(arguments.threads)
    print(f"machine: {processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    print(f"versions: Python {platform.python_version()}, torch {torch.__version__}")
    size = f"{arguments.episodes} episodes x {arguments.turns} turns x {arguments.tokens} tokens"
    print(f"batch: {size}")

    batch = make_batch(arguments.episodes, arguments.turns, arguments.tokens)
    loop_batch = LoopBatch(batch.turns.records, [head.tolist() for head in batch.heads], batch.log_probs.tolist())

    for name, ours, theirs in zip(COMPARED, vectorised(batch), looped(loop_batch), strict=True):
        reference = torch.tensor(theirs, dtype=torch.float64)
        difference = float((ours.double() - reference).abs().max())
        allowed = 0.0 if name in ("credit_mask", "value_mask") else TOLERANCE
        print(f"{name}: largest difference to the loop {difference:.1e} (allowed {allowed:.0e})")
        if not difference <= allowed:
            print("the two do not agree, so their times cannot be compared", file=sys.stderr)
            return 1

    vectorised_ms = milliseconds(lambda: vectorised(batch), arguments.repeats)
    looped_ms = milliseconds(lambda: looped(loop_batch), arguments.loop_repeats)
    print(describe("read_slots and batch_credit", vectorised_ms))
    print(describe("Python loop over rows and tokens", looped_ms))
    print(f"ratio of the medians: {statistics.median(looped_ms) / statistics.median(vectorised_ms):.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
