# SPDX-License-Identifier: Apache-2.0
"""How long credit assignment takes: HAE with whitening, token advantages, loss mask and value targets of one batch.

    python benchmarks/hae_speed.py            # 128 episodes x 50 turns x 128 tokens

Times the tensor functions of `recipe.hiper` and, in the same run, a Python loop over rows and tokens that does the same
arithmetic on lists, and checks that both give the same numbers. The rows are shuffled, as they are in training.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipe.hiper.credit import Head, episode_grid, gather_values, token_credit, value_targets, whiten
from recipe.hiper.hae import HAEConfig, hierarchical_advantages

CONFIG = HAEConfig(gamma=0.99, lam_turn=0.95, lam_seg=0.9)
AT_LEAST_ONE = ("episodes", "turns", "repeats", "loop_repeats", "threads")
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


@dataclass(frozen=True)
class Rows:
    """One batch as the trainer holds it: a row per turn, in any order."""

    episode: Tensor
    turn: Tensor
    is_padding: Tensor
    reward: Tensor
    boundary: Tensor
    terminated: Tensor
    spans: Tensor
    value_low: Tensor
    values: Tensor


def make_rows(episodes: int, turns: int, tokens: int, dtype: torch.dtype) -> Rows:
    generator = torch.Generator().manual_seed(0)
    rows = episodes * turns
    order = torch.randperm(rows, generator=generator)
    turn = order % turns
    cuts = torch.rand(rows, tokens, generator=generator).argsort(1)[:, :6].sort(1).values
    cuts[:, 0] = 0
    spans = cuts.view(rows, 3, 2)
    return Rows(
        episode=order // turns,
        turn=turn,
        is_padding=torch.zeros(rows, dtype=torch.bool),
        reward=torch.randn(rows, generator=generator, dtype=dtype),
        boundary=(torch.rand(rows, generator=generator) < 0.3) | (turn == 0),
        terminated=turn == turns - 1,
        spans=spans,
        value_low=spans[:, 1, 1],
        values=torch.randn(rows, tokens, 3, generator=generator, dtype=dtype),
    )


def vectorised(rows: Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Token advantages, loss mask, value targets, value mask."""
    tokens = rows.values.shape[1]
    grid = episode_grid(rows.episode, rows.turn, rows.is_padding)
    values = gather_values(rows.values, rows.value_low)
    boundary = grid.to_grid(rows.boundary)
    hae = hierarchical_advantages(
        *(grid.to_grid(x) for x in (rows.reward, values.low, values.high, values.term)),
        boundary=boundary,
        valid=grid.valid,
        terminated=grid.to_grid(rows.terminated),
        config=CONFIG,
    )
    white = [
        whiten(hae.adv_switch, grid.valid),
        whiten(hae.adv_high, boundary),
        whiten(hae.adv_low, grid.valid),
    ]
    credit = token_credit(*map(grid.to_rows, white), rows.boundary, rows.spans, tokens, rows.is_padding)
    targets = value_targets(
        *map(grid.to_rows, (hae.target_high, hae.target_low, hae.target_term)),
        rows.boundary,
        rows.value_low,
        tokens,
        rows.is_padding,
    )
    return credit.advantages, credit.loss_mask, targets.targets, targets.mask


@dataclass
class LoopRows:
    """`Rows` as Python lists, converted outside the timed part."""

    episode: list[int]
    turn: list[int]
    reward: list[float]
    boundary: list[bool]
    terminated: list[bool]
    spans: list[list[list[int]]]
    value_low: list[int]
    values: list[list[list[float]]]


def whiten_list(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return [(value - mean) / (variance + 1e-8) ** 0.5 for value in values]


def looped(rows: LoopRows) -> tuple[list, list, list, list]:
    """The same arithmetic, one row and one token at a time."""
    gamma, lam_turn, lam_seg = CONFIG.gamma, CONFIG.lam_turn, CONFIG.lam_seg
    count, tokens = len(rows.reward), len(rows.values[0])
    row_of = {(rows.episode[row], rows.turn[row]): row for row in range(count)}
    low, high, switch, target_low, target_high, target_term = ([0.0] * count for _ in range(6))
    for row in sorted(range(count), key=lambda row: -rows.turn[row]):
        v_hi = rows.values[row][0][Head.HIGH]
        v_term = rows.values[row][0][Head.TERM]
        v_lo = rows.values[row][rows.value_low[row]][Head.LOW]
        after = None if rows.terminated[row] else row_of.get((rows.episode[row], rows.turn[row] + 1))
        next_low = next_high = next_term = next_adv = 0.0
        if after is not None and rows.boundary[after]:
            next_low = next_term = rows.values[after][0][Head.HIGH]
            next_high = next_low + lam_seg * (target_high[after] - next_low)
        elif after is not None:
            next_low = rows.values[after][rows.value_low[after]][Head.LOW]
            next_high, next_term, next_adv = target_high[after], target_term[after], low[after]
        low[row] = rows.reward[row] + gamma * next_low - v_lo + gamma * lam_turn * next_adv
        target_low[row] = low[row] + v_lo
        target_high[row] = rows.reward[row] + gamma * next_high
        high[row] = target_high[row] - v_hi
        target_term[row] = rows.reward[row] + gamma * next_term
        switch[row] = target_term[row] - v_term

    switch, low = whiten_list(switch), whiten_list(low)
    opening = [row for row in range(count) if rows.boundary[row]]
    for row, value in zip(opening, whiten_list([high[row] for row in opening]), strict=True):
        high[row] = value

    advantages, loss_mask, targets, masks = [], [], [], []
    for row in range(count):
        token_advantages, token_mask, token_targets, token_masks = [], [], [], []
        (switch_start, switch_end), (subgoal_start, subgoal_end), (action_start, action_end) = rows.spans[row]
        for token in range(tokens):
            advantage, in_loss = 0.0, False
            if switch_start <= token < switch_end:
                advantage, in_loss = switch[row], True
            elif subgoal_start <= token < subgoal_end and rows.boundary[row]:
                advantage, in_loss = high[row], True
            elif action_start <= token < action_end:
                advantage, in_loss = low[row], True
            token_advantages.append(advantage)
            token_mask.append(in_loss)
            at_high, at_low = token == 0 and rows.boundary[row], token == rows.value_low[row]
            token_targets.append(
                [
                    target_high[row] if at_high else 0.0,
                    target_low[row] if at_low else 0.0,
                    target_term[row] if token == 0 else 0.0,
                ]
            )
            token_masks.append([at_high, at_low, token == 0])
        advantages.append(token_advantages)
        loss_mask.append(token_mask)
        targets.append(token_targets)
        masks.append(token_masks)
    return advantages, loss_mask, targets, masks


def milliseconds(function: Callable[[], object], repeats: int) -> list[float]:
    times = []
    gc.disable()  # As `timeit` does: collecting the loop's lists takes longer than the loop and flatters the ratio.
    try:
        for _ in range(repeats):
            start = time.perf_counter()
            function()
            times.append(1e3 * (time.perf_counter() - start))
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
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; the Python loop has one in any case")
    arguments = parser.parse_args()
    if arguments.tokens < 6 or min(vars(arguments)[name] for name in AT_LEAST_ONE) < 1:
        parser.error("--tokens must be at least 6, all other numbers at least 1")

    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    print(f"machine: {processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    print(f"versions: Python {platform.python_version()}, torch {torch.__version__}")
    size = f"{arguments.episodes} episodes x {arguments.turns} turns x {arguments.tokens} tokens"
    print(f"batch: {size}, {arguments.dtype}")

    rows = make_rows(arguments.episodes, arguments.turns, arguments.tokens, dtype)
    names = ("episode", "turn", "reward", "boundary", "terminated", "spans", "value_low", "values")
    loop_rows = LoopRows(**{name: getattr(rows, name).tolist() for name in names})

    actual, expected = vectorised(rows), looped(loop_rows)
    for name, ours, theirs in zip(("advantages", "loss mask", "targets", "value mask"), actual, expected, strict=True):
        reference = torch.tensor(theirs, dtype=torch.float64)
        difference = float((ours.double() - reference).abs().max())
        allowed = 0.0 if ours.dtype == torch.bool else TOLERANCE[dtype]
        print(f"{name}: largest difference to the loop {difference:.1e} (allowed {allowed:.0e})")
        if not difference <= allowed:
            print("the two do not agree; the times below would mean nothing", file=sys.stderr)
            return 1

    ours = milliseconds(lambda: vectorised(rows), arguments.repeats)
    theirs = milliseconds(lambda: looped(loop_rows), arguments.loop_repeats)
    print(describe("tensor functions", ours))
    print(describe("Python loop over rows and tokens", theirs))
    print(f"ratio of the medians: {statistics.median(theirs) / statistics.median(ours):.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
