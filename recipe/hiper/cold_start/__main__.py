# SPDX-License-Identifier: Apache-2.0
"""Command line of the warm start: `python -m recipe.hiper.cold_start --out <model folder> --games <games folder>`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent_system.errors import HiPERError
from agent_system.processes import usable_cpus


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes or reuses the games and the model."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.hiper.cold_start",
        description=(
            "Make the CPU profile's model: generate games, let the scripted expert demonstrate on them, train a "
            "tokenizer and clone the expert's behaviour. Finished folders are reused."
        ),
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the model (Hugging Face format)")
    parser.add_argument("--games", type=Path, required=True, help="folder of the generated games; reused if finished")
    parser.add_argument("--seed", type=int, default=0, help="seed of demonstrations and training (default: 0)")
    parser.add_argument("--steps", type=int, help="training steps (default: the CPU profile's)")
    parser.add_argument("--episodes", type=int, help="demonstrations (default: the CPU profile's)")
    parser.add_argument(
        "--workers", type=int, default=usable_cpus(), help="processes that play games; changes the speed only"
    )
    options = parser.parse_args(arguments)

    # After parsing, and not at the top: torch takes seconds to load, and the processes that play games, which import
    # this file again, do without it.
    from recipe.hiper.cold_start.build import WarmStartSpec, make_warm_start

    spec = WarmStartSpec()
    demonstrations = replace(spec.demonstrations, seed=options.seed)
    training = replace(spec.train, seed=options.seed)
    if options.steps is not None:
        training = replace(training, steps=options.steps)
    if options.episodes is not None:
        demonstrations = replace(demonstrations, episodes=options.episodes)
    spec = replace(spec, demonstrations=demonstrations, train=training)
    try:
        report = make_warm_start(options.out, options.games, spec, workers=options.workers, progress=True)
    except HiPERError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(
        f"{options.out}: {report.held_out_exact:.1%} of held-out replies are exactly the expert's "
        f"(loss {report.first_loss:.3f} -> {report.last_loss:.3f}, held out {report.held_out_loss:.3f})"
    )


if __name__ == "__main__":
    main()
