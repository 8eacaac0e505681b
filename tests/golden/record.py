# SPDX-License-Identifier: Apache-2.0
"""Rewrite the golden values: `python tests/golden/record.py [part ...]`, from the root of the repository.

Parts are `replies`, `advantages`, `prompts` and `configurations`; without one, all of them. `git diff --stat
tests/golden/data` then shows what moved, and `golden_files` lists which file holds what.

It is legitimate to run this when, and only when, the change under review is meant to change the recorded values: a
fixed estimator, another word in a prompt, a new or renamed key. State in the commit message which values move and why,
and record only that part. After a change that is not meant to move numbers (moved modules, renamed functions, typed
settings) edit `adapter.py` instead; a test that fails then has found a defect.

`--run FOLDER` records the metrics of a run of the script on this machine: the run that the tests leave in
`script*/run` of their temporary folder, or one with the settings of `SCRIPT_SETTINGS` in tests/conftest.py.

`--episodes` plays the recorded episodes again (two minutes; needs the game engine), and with them the inputs of all
other parts change. It is for a change of the form of `episodes.json.gz`, not for a change of the code under test: tests
compare with the parse results that this file holds. To record those after a change of the parser that is meant, without
playing: `replies`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("VERL_PLATFORM", "cpu")

import adapter
import golden_files as files
import golden_values as values
from golden_cases import ESTIMATORS, HISTORY_LENGTHS, PROMPT_TURNS, REPLIES
from golden_run import reproducible, this_machine
from golden_scripts import scripts
from omegaconf import OmegaConf


def record_episodes() -> None:
    """Play the episodes; split the single replies into tokens; choose the episodes that prompts are made from."""
    from golden_episodes import recorded_episodes, token_pieces

    batches = recorded_episodes()
    files.write(files.EPISODES, batches)
    files.write(files.REPLIES, [{"pieces": token_pieces(text, has_end_token=True)} for text in REPLIES])
    files.write(files.PROMPTS, {"transcripts": _transcripts(batches)})


def _transcripts(batches: dict[str, Any]) -> dict[str, Any]:
    """The first long enough episode of each environment and kind of page."""

    def first(environment: str, is_compact: bool) -> dict[str, Any]:
        for number, episode in enumerate(batches["three_blocks"]["episodes"]):
            has_compact_pages = episode["turns"][0]["observation"] == "search page"
            fits = environment == "alfworld" or has_compact_pages == is_compact
            if episode["environment"] == environment and fits and len(episode["turns"]) > max(PROMPT_TURNS):
                return {"batch": "three_blocks", "episode": number}
        raise LookupError(f"no recorded episode of {environment} has more than {max(PROMPT_TURNS)} turns")

    return {
        f"{environment} {kind}": first(environment, kind == "compact")
        for environment in values.ENVIRONMENTS
        for kind in ("full", "compact")
    }


def record_replies() -> None:
    """What is read in the single replies and in those of the recorded episodes."""
    files.write(files.REPLIES, values.replies([reply["pieces"] for reply in files.read(files.REPLIES)]))
    batches = files.read(files.EPISODES)
    for batch in batches.values():
        for episode in batch["episodes"]:
            for turn, reply in enumerate(values.episode_replies(batch["format"], episode)):
                episode["turns"][turn].update(reply)
    files.write(files.EPISODES, batches)


def record_advantages() -> None:
    batches = files.read(files.EPISODES)
    files.write(files.ADVANTAGES, {name: values.advantages(case, batches) for name, case in ESTIMATORS.items()})


def record_prompts() -> None:
    """Every style of both environments; budgets that lose nothing, turns, a part of the observation, and too small."""
    batches = files.read(files.EPISODES)
    recorded = {"transcripts": files.read(files.PROMPTS)["transcripts"], "styles": adapter.styles_of_environments()}
    recorded["cases"] = {}
    for path in files.PROMPT_TEXTS.glob("*.txt"):
        path.unlink()
    files.PROMPT_TEXTS.mkdir(parents=True, exist_ok=True)
    for environment in values.ENVIRONMENTS:
        for style in adapter.styles():
            episode = values.transcript(recorded, batches, environment, style)
            cases = [
                {"turn": turn, "history_length": length, "budget": None}
                for turn in PROMPT_TURNS
                for length in HISTORY_LENGTHS
                if length == 0 or turn > 0
            ]
            turn, length = PROMPT_TURNS[-1], HISTORY_LENGTHS[-1]
            cases += [
                {"turn": turn, "history_length": length, "budget": budget}
                for budget in _budgets(style, environment, episode, turn, length)
            ]
            name = f"{environment}.{style}"
            recorded["cases"][name] = cases
            text = values.prompt_text(style, environment, episode, cases)
            (files.PROMPT_TEXTS / f"{name}.txt").write_text(text, encoding="utf-8")
    files.write(files.PROMPTS, recorded)


def _budgets(style: str, environment: str, episode: dict[str, Any], turn: int, history_length: int) -> list[int]:
    """Enough for everything; one word too small for it, for one turn less, for no history; the least; too small."""

    def fitted(budget: int) -> dict[str, Any]:
        return adapter.prompt_in_budget(style, environment, episode, turn, history_length, values.count_words, budget)

    full, least = fitted(0)["full"], fitted(0)["needed"]
    one_dropped = fitted(full - 1)["tokens"]
    all_dropped = fitted(one_dropped - 1)["tokens"]
    budgets = [full, full - 1, one_dropped - 1, all_dropped - 1, (all_dropped + least) // 2, least, least - 1]
    return sorted(set(budgets), reverse=True)


def record_configurations() -> None:
    """The scripts of HiPER in full, the others as what they change."""
    for path in files.CONFIGURATIONS.glob("*.yaml"):
        path.unlink()
    files.CONFIGURATIONS.mkdir(parents=True, exist_ok=True)
    changes: dict[str, Any] = {}
    for environment in values.CONFIGURED:
        for profile in values.PROFILES:
            reference = values.script_config(values.REFERENCE.format(environment), profile)
            text = OmegaConf.to_yaml(reference)
            (files.CONFIGURATIONS / f"{environment}.{profile}.yaml").write_text(text, encoding="utf-8")
    for script in scripts():
        for profile in values.PROFILES:
            reference = values.leaves(
                values.script_config(values.REFERENCE.format(values.environment_of(script)), profile)
            )
            config = values.leaves(values.script_config(script, profile))
            if missing := set(reference) - set(config):
                raise ValueError(f"{script} takes keys away, which cannot be stored: {sorted(missing)}")
            changes.setdefault(script, {})[profile] = {
                key: value
                for key, value in config.items()
                if key not in reference or repr(reference[key]) != repr(value)
            }
    text = OmegaConf.to_yaml(OmegaConf.create(changes))
    (files.CONFIGURATIONS / "scripts.yaml").write_text(text, encoding="utf-8")


def record_run(folder: Path) -> None:
    """The metrics of a finished run with the settings of `SCRIPT_SETTINGS` in tests/conftest.py."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    files.write(
        files.RUN, {"machine": this_machine(), "metrics": {str(row["step"]): reproducible(row) for row in rows}}
    )


PARTS = {
    "replies": record_replies,
    "advantages": record_advantages,
    "prompts": record_prompts,
    "configurations": record_configurations,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--episodes", action="store_true", help="play the recorded episodes again")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="record the metrics of this run of the script")
    arguments = parser.parse_args()
    if arguments.run:
        record_run(arguments.run)
        return
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}. Try: {' '.join(PARTS)}")
    if arguments.episodes and arguments.parts:
        parser.error("--episodes changes the inputs of all parts. Try: --episodes without a part")
    if arguments.episodes:
        record_episodes()
    for part in arguments.parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
