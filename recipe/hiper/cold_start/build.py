# SPDX-License-Identifier: Apache-2.0
"""Makes the warm-started model, from games to a finished Hugging Face folder, or reuses a finished one."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM
from transformers.utils import logging as transformers_logging

from agent_system.environments.alfworld.game_spec import GameSpec
from agent_system.environments.alfworld.games import alfworld_panel
from agent_system.environments.alfworld.generate import generate_games
from agent_system.environments.tasks import epoch_order
from agent_system.environments.webshop.shop import ShopManifest
from agent_system.errors import ConfigError, TaskError
from agent_system.locks import locked_file
from recipe.hiper.cold_start.demonstrations import Demonstration, DemonstrationSpec, Example, collect, settings_of
from recipe.hiper.cold_start.model import ModelSpec, build_model
from recipe.hiper.cold_start.shop_demonstrations import ShopDemonstrationSpec, collect_in_shop, shop_names
from recipe.hiper.cold_start.tokenizer import train_tokenizer
from recipe.hiper.cold_start.train import TrainReport, TrainSpec, encode, train

CODE_VERSION = 2
"""Raise it whenever the same spec would give another model."""
MANIFEST = "warm_start.json"
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of <malloc.h>."""
_TOKENIZER_SAMPLE = 6000
"""Turns that the tokenizer is trained on: every word of the games occurs often in so many."""
_HELD_OUT_SEED_SHIFT = 1_000_003
"""Held-out demonstrations are drawn with another seed than those that are trained on."""


@dataclass(frozen=True)
class CloningSpec:
    """What a model depends on. Each family has a subclass with its own default demonstrations.

    Args:
        demonstrations: how they are played: a dataclass with `episodes` and `seed`.
        model: sizes of the model.
        train: how it is trained.
        max_phrases: of the tokenizer.
        held_out_episodes: demonstrations that are only measured on.
        threads: of torch. The order of additions depends on it, and so the last bits of the weights.
    """

    demonstrations: Any
    model: ModelSpec = field(default_factory=ModelSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    max_phrases: int = 128
    held_out_episodes: int = 96
    threads: int = 2

    @property
    def digest(self) -> str:
        """SHA-256 over this spec and the version of the code."""
        content = json.dumps({"code": CODE_VERSION, **settings_of(self)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class WarmStartSpec(CloningSpec):
    """Everything that ALFWorld's model depends on.

    Args:
        games: the games; demonstrations are played on train, and measured on valid_seen.
        demonstrations: how the expert plays.
        max_vocabulary: of the tokenizer, before its fixed tokens and phrases are added.
    """

    games: GameSpec = field(default_factory=GameSpec)
    demonstrations: DemonstrationSpec = field(default_factory=DemonstrationSpec)
    max_vocabulary: int = 1200


@dataclass(frozen=True)
class ShopWarmStartSpec(CloningSpec):
    """Everything that a shop's model depends on besides the shop. Arguments as `WarmStartSpec`.

    `max_names`: where a shop has at most so many names and values of options, each of them is one token, the
    same in a task, on a page and in a reply. Choosing one is then copying one token; in pieces, some of which differ
    after a space and after a bracket, that was learned late, if at all.
    """

    demonstrations: ShopDemonstrationSpec = field(default_factory=ShopDemonstrationSpec)
    max_vocabulary: int = 2000
    max_names: int = 1000


def make_warm_start(
    out_dir: Path, games_dir: Path, spec: WarmStartSpec, *, workers: int, progress: bool
) -> TrainReport:
    """Makes the model in `out_dir` and its games in `games_dir`; both are reused where they are finished already.

    Steps: games, demonstrations, tokenizer, behaviour cloning. The folder appears under its name only when it is
    complete: config.json, model.safetensors, tokenizer.json, tokenizer_config.json, chat_template.jinja,
    generation_config.json and warm_start.json.

    Args:
        workers: processes that play games; the result does not depend on their number.
        progress: whether progress bars are drawn on standard error.

    Raises:
        ConfigError: `out_dir` holds something else, or a model made from another spec.
        TaskError: the games folder is damaged, or `out_dir` has an unreadable manifest.
    """
    games = generate_games(games_dir, spec.games, workers=workers, progress=progress)

    def examples(split: str, demonstrations: DemonstrationSpec) -> list[Example]:
        tasks = epoch_order(alfworld_panel(games_dir, split), demonstrations.seed, epoch=0)
        files = [Path(task.options["game_file"]) for task in tasks]
        return turns_of(collect(files, demonstrations, workers=workers, progress=progress))

    def learn_tokenizer(texts: list[str]) -> PreTrainedTokenizerBase:
        return train_tokenizer(texts, spec.max_vocabulary, spec.model.positions, spec.max_phrases)

    splits = ("train", "valid_seen")
    return make_clone(out_dir, spec, games.digest, examples, learn_tokenizer, splits, progress)


def make_shop_warm_start(
    out_dir: Path, shop: Path, spec: ShopWarmStartSpec, *, workers: int, progress: bool
) -> TrainReport:
    """The same for a prepared shop: demonstrations on the training goals, measured on those of "eval".

    Raises:
        ConfigError: `out_dir` holds something else, or a model made from another spec or in another shop.
        TaskError: `out_dir` has an unreadable manifest.
    """
    manifest = ShopManifest.read(shop)
    made_from = hashlib.sha256(json.dumps([manifest.sources, manifest.tagger], sort_keys=True).encode()).hexdigest()

    def examples(part: str, demonstrations: ShopDemonstrationSpec) -> list[Example]:
        return turns_of(collect_in_shop(shop, part, demonstrations, workers=workers, progress=progress))

    def learn_tokenizer(texts: list[str]) -> PreTrainedTokenizerBase:
        names = shop_names(shop)
        every = sorted({*names.groups, *names.values})
        few = every if len(every) <= spec.max_names else []
        # Attributes follow commas in titles and tasks alike, but for the first one, and option values behind
        # colons in tasks and sub-goals: none of them may look different for it.
        return train_tokenizer(texts, spec.max_vocabulary, spec.model.positions, spec.max_phrases, few, apart=",:")

    splits = ("train", "eval")
    return make_clone(out_dir, spec, made_from, examples, learn_tokenizer, splits, progress)


def make_clone(
    out_dir: Path,
    spec: CloningSpec,
    data_digest: str,
    collect_examples: Callable[[str, Any], list[Example]],
    learn_tokenizer: Callable[[list[str]], PreTrainedTokenizerBase],
    splits: tuple[str, str],
    progress: bool,
) -> TrainReport:
    """Demonstrations, tokenizer, behaviour cloning; or the finished model. Who comes second waits and takes that.

    Args:
        out_dir: appears under its name only when it is complete.
        data_digest: of the data of the tasks.
        collect_examples: called with a split and `spec.demonstrations`, or the same with other episodes; returns the
            turns.
        learn_tokenizer: called with prompts and replies.
        splits: on which is trained and on which is measured.
        progress: whether progress bars are drawn on standard error.

    Raises:
        ConfigError: `out_dir` holds something else, or a model made from another spec or other data.
        TaskError: `out_dir` has an unreadable manifest.
    """
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with locked_file(out_dir.with_name(f".{out_dir.name}.lock")):
        if out_dir.exists():
            return _reused(out_dir, spec, data_digest)
        for left in out_dir.parent.glob(f"{out_dir.name}.partial-*"):  # of makers that were killed
            shutil.rmtree(left)
        examples = collect_examples(splits[0], spec.demonstrations)
        held_out_spec = replace(
            spec.demonstrations,
            episodes=spec.held_out_episodes,
            seed=spec.demonstrations.seed + _HELD_OUT_SEED_SHIFT,
        )
        held_out = collect_examples(splits[1], held_out_spec)
        tokenizer = learn_tokenizer([text for e in examples[:_TOKENIZER_SAMPLE] for text in (e.prompt, e.reply)])

        _keep_freed_memory()
        threads = torch.get_num_threads()
        torch.set_num_threads(spec.threads)
        try:
            model = build_model(
                spec.model, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id, seed=spec.train.seed
            )
            encoded, encoded_held_out = encode(examples, tokenizer), encode(held_out, tokenizer)
            report = train(model, encoded, encoded_held_out, spec.train, progress=progress)
        finally:
            torch.set_num_threads(threads)
        _save(out_dir, model, tokenizer, spec, data_digest, report)
        return report


def _keep_freed_memory() -> None:
    """Have glibc's allocator keep what is freed. Elsewhere than on glibc nothing happens.

    It gives every activation back to the kernel otherwise, and allocates it again in the next step: a quarter of the
    time went into page faults.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over the names and values of all parameters: equal for equal models."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def turns_of(demonstrations: list[Demonstration]) -> list[Example]:
    """The turns of all episodes, in order."""
    return [example for demonstration in demonstrations for example in demonstration.examples]


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Switch off the progress bars of transformers, which draws one ("Writing model shards") for any model it saves."""
    were_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_enabled:
            transformers_logging.enable_progress_bar()


def _save(
    out_dir: Path,
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    spec: CloningSpec,
    data_digest: str,
    report: TrainReport,
) -> None:
    partial = out_dir.with_name(f"{out_dir.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with _no_progress_bars():
        model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    content = {
        "digest": spec.digest,
        "games_digest": data_digest,
        "weights_digest": weights_digest(model),
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "report": asdict(report),
        "spec": asdict(spec),
        "made_with": {name: version(name) for name in ("torch", "transformers", "tokenizers", "alfworld")},
    }
    (partial / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    partial.rename(out_dir)


def _reused(out_dir: Path, spec: CloningSpec, data_digest: str) -> TrainReport:
    path = out_dir / MANIFEST
    if not path.exists():
        raise ConfigError(
            f"{out_dir} exists and holds no {MANIFEST}: it is not a warm start. Try: --out <another folder>"
        )
    try:
        report_file = json.loads(path.read_text("utf-8"))
        digest, games_digest, report = (
            report_file["digest"],
            report_file["games_digest"],
            TrainReport(**report_file["report"]),
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise TaskError(f"{path} cannot be read ({error!r}). Try: delete {out_dir} and run again") from error
    if digest != spec.digest or games_digest != data_digest:
        raise ConfigError(
            f"{out_dir} holds a model that was made from other settings or other data (digest {digest[:12]}, not "
            f"{spec.digest[:12]}). Try: --out <another folder>, or delete this one"
        )
    return report
