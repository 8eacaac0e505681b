# SPDX-License-Identifier: Apache-2.0
"""How often TextCraft's scripted player wins, by depth of the recipe tree, and what a step of the environment costs.

    python benchmarks/textcraft_player.py                       # every task of every part, as profile=gpu
    python benchmarks/textcraft_player.py --depths 1 2 3 --distractors 3 --max-steps 36     # as profile=cpu

Players: careful; the one of the small model's demonstrations; the same for a pretrained model. Slips and wrong
sub-goals of the demonstrations included. Times are CPU time in one process, admissible actions included.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import replace

from machine import describe

from agent_system.environments.textcraft.env import TextCraftEnv
from agent_system.environments.textcraft.tasks import DEPTHS, DISTRACTORS, PARTS, textcraft_panel
from recipe.hiper.cold_start.craft_demonstrations import CraftDemonstrationSpec, demonstrate, pretrained_demonstrations

PLAYERS = {
    "careful": CraftDemonstrationSpec(idle=0.0, distracted=0.0, slips=0.0, wrong_subgoals=0.0, renamed=0.0),
    "for the small model": replace(CraftDemonstrationSpec(), renamed=0.0),
    "for a pretrained model": pretrained_demonstrations(),
}


def wins(part: str, spec: CraftDemonstrationSpec, depths: list[int], distractors: int) -> dict[str, list[tuple]]:
    """Won or not, turns, and sub-goals that were set, of every task of a part, by kind."""
    played: dict[str, list[tuple]] = defaultdict(list)
    for number, task in enumerate(textcraft_panel(part, depths=depths, distractors=distractors).tasks):
        episode = demonstrate(task, number, spec, {})
        switches = sum("SWITCH" in example.reply for example in episode.examples)
        played[task.kind].append((episode.won, len(episode.examples), switches))
    return played


def milliseconds(depths: list[int], distractors: int) -> tuple[float, float]:
    """CPU time of a reset and of a step, over the first actions of each task of eval."""
    env, resets, steps = TextCraftEnv(), [], []
    for task in textcraft_panel("eval", depths=depths, distractors=distractors).tasks:
        start = time.process_time()
        _, info = env.reset(options=dict(task.options))
        resets.append(time.process_time() - start)
        for action in info["admissible_actions"][:8]:
            start = time.process_time()
            env.step(action)
            steps.append(time.process_time() - start)
    return 1e3 * sum(resets) / len(resets), 1e3 * sum(steps) / len(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", choices=DEPTHS, default=list(DEPTHS))
    parser.add_argument("--distractors", type=int, default=DISTRACTORS)
    parser.add_argument("--max-steps", type=int, default=40)
    options = parser.parse_args()
    print(describe("textcraft", "gymnasium"))
    print("| player | part | kind | tasks | won | turns, mean / max | sub-goals, mean |\n|---|---|---|---|---|---|---|")
    for name, player in PLAYERS.items():
        for part in PARTS:
            spec = replace(player, max_turns=options.max_steps)
            for kind, results in wins(part, spec, options.depths, options.distractors).items():
                won, turns, switches = zip(*results, strict=True)
                size = len(results)
                print(
                    f"| {name} | {part} | {kind} | {size} | {sum(won) / size:.1%} | "
                    f"{sum(turns) / size:.1f} / {max(turns)} | {sum(switches) / size:.1f} |"
                )
    reset, step = milliseconds(options.depths, options.distractors)
    print(f"reset {reset:.2f} ms, step {step:.3f} ms")


if __name__ == "__main__":
    main()
