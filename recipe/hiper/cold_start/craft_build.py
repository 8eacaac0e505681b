# SPDX-License-Identifier: Apache-2.0
"""Makes the small model of TextCraft from nothing, as `build` does for ALFWorld and for a shop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from recipe.hiper.cold_start.build import CloningSpec, make_clone, turns_of
from recipe.hiper.cold_start.craft_demonstrations import CraftDemonstrationSpec
from recipe.hiper.cold_start.demonstrations import Demonstration, Example
from recipe.hiper.cold_start.tokenizer import train_tokenizer
from recipe.hiper.cold_start.train import TrainReport


@dataclass(frozen=True)
class CraftWarmStartSpec(CloningSpec):
    """Everything that TextCraft's model depends on besides the tasks. Arguments as `WarmStartSpec`."""

    demonstrations: CraftDemonstrationSpec = field(default_factory=CraftDemonstrationSpec)
    max_vocabulary: int = 2000


def make_craft_warm_start(
    out_dir: Path,
    play: Callable[..., list[Demonstration]],
    data_digest: str,
    spec: CraftWarmStartSpec,
    *,
    workers: int,
    progress: bool,
) -> TrainReport:
    """Makes the model in `out_dir`, or reuses the finished one.

    Args:
        play: called as `play(split, demonstrations, workers=..., progress=...)` with the split "train" or "held_out".
        data_digest: of the tasks.
        workers: processes that play; the result does not depend on their number.
        progress: whether progress bars are drawn on standard error.

    Raises:
        ConfigError: `out_dir` holds something else, or a model made from another spec or from other tasks.
        TaskError: `out_dir` has an unreadable manifest.
    """

    def examples(split: str, demonstrations: CraftDemonstrationSpec) -> list[Example]:
        return turns_of(play(split, demonstrations, workers=workers, progress=progress))

    def learn_tokenizer(texts: list[str]) -> PreTrainedTokenizerBase:
        # A name stands behind a count in a command, and before a comma, a semicolon or a full stop in others: it must
        # have the same tokens everywhere.
        return train_tokenizer(texts, spec.max_vocabulary, spec.model.positions, spec.max_phrases, apart=",;.")

    splits = ("train", "held_out")
    return make_clone(out_dir, spec, data_digest, examples, learn_tokenizer, splits, progress)
