# SPDX-License-Identifier: Apache-2.0
"""Makes solvable ALFWorld games in the published layout, from the floor plans that the alfworld wheel ships.

    python -m agent_system.environments.alfworld.generate --out games

writes `<out>/json_2.1.1/{train,valid_seen,valid_unseen}/<task>-<Obj>-None-<Recep>-<scene>/trial_*/` with `game.tw-pddl`
and `traj_data.json`, and `<out>/manifest.json`. Every game has been won in the real engine before it is written. Games
depend on the `GameSpec` alone: same spec, same bytes, on every machine and with any number of workers. train and
valid_seen share their scenes, valid_unseen has its own scenes (`rooms.HELD_OUT_SCENES`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from agent_system.environments.alfworld import rooms
from agent_system.environments.alfworld.game_spec import SPLITS, GameSpec
from agent_system.environments.alfworld.games import DATA_FOLDER, GAME_NAME, TRAJECTORY_NAME
from agent_system.environments.alfworld.problem import GameFiles, compose
from agent_system.environments.alfworld.rooms import TaskKind
from agent_system.errors import ConfigError, TaskError
from agent_system.locks import LOCK, locked
from agent_system.processes import end_with_parent, usable_cpus

GENERATOR_VERSION = 1
"""Raise it whenever the same spec would give other bytes."""
MANIFEST = "manifest.json"
_PARTIAL = ".partial"
_MAX_ATTEMPTS = 200


@dataclass(frozen=True)
class Manifest:
    """The content of a finished folder. `digest` is SHA-256 over the paths and contents of all game files."""

    spec: GameSpec
    games: int
    digest: str


def generate_games(out_dir: Path, spec: GameSpec, *, workers: int, progress: bool) -> Manifest:
    """Generates the games of `spec` under `out_dir`, or reuses them where they are finished already.

    A run that was killed is taken up where it stopped. Two runs on one folder wait for each other.

    Args:
        out_dir: made if absent. Afterwards `ALFWORLD_DATA=out_dir` works for the alfworld package too.
        workers: processes (no torch in them); the result does not depend on their number.
        progress: whether a progress bar is drawn on standard error.

    Raises:
        ConfigError: the folder holds games of another spec, or something else altogether.
        TaskError: a finished folder was changed afterwards, or its manifest cannot be read.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with locked(out_dir):
        if _prepared(out_dir, spec):
            return _reused(out_dir, spec)
        slots = [(split, index) for split in SPLITS for index in range(getattr(spec, split))]
        digests: dict[str, str] = {}
        context = multiprocessing.get_context("spawn")
        with (
            ProcessPoolExecutor(max(1, workers), mp_context=context, initializer=end_with_parent) as pool,
            tqdm(total=len(slots), desc="ALFWorld games", unit="game", disable=not progress) as bar,
        ):
            batches = [slots[i : i + 8] for i in range(0, len(slots), 8)]
            running = [pool.submit(_produce_batch, out_dir, spec, batch) for batch in batches]
            try:
                for future in as_completed(running):
                    done = future.result()
                    digests.update(done)
                    bar.update(len(done))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        shutil.rmtree(out_dir / _PARTIAL, ignore_errors=True)
        manifest = Manifest(spec, len(slots), _combined(digests))
        _write_manifest(out_dir, spec, manifest)
        return manifest


def make_candidate(spec: GameSpec, split: str, index: int, attempt: int) -> GameFiles | None:
    """Candidate number `attempt` for game `index` of a split; None where the draw gave no room. Plays nothing."""
    rng = random.Random(f"{GENERATOR_VERSION}/{spec.seed}/{split}/{index}/{attempt}")
    kind = spec.task_types[index % len(spec.task_types)]
    scene = rng.choice(_scenes_with(kind, held_out=split == "valid_unseen"))
    goal = rng.choice(rooms.goals(scene, kind))
    room = rooms.furnish(scene, goal, spec.limits, rng)
    if room is None:
        return None
    trial = f"trial_T{SPLITS.index(split)}{index:07d}_{rng.randrange(10**6):06d}_{rng.randrange(10**6):06d}"
    return compose(room, goal, trial, rng)


@cache
def _scenes_with(kind: TaskKind, held_out: bool) -> tuple[int, ...]:
    return tuple(s for s in rooms.scenes() if (s in rooms.HELD_OUT_SCENES) == held_out and rooms.goals(s, kind))


# --- in the workers -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _verifier():
    # Imported here: reading or configuring games should not load the game engine.
    from agent_system.environments.alfworld.verify import Verifier

    return Verifier()


def _produce_batch(out_dir: Path, spec: GameSpec, slots: Sequence[tuple[str, int]]) -> dict[str, str]:
    """Writes the games of these slots and returns the digest of each by its path relative to the data folder."""
    return dict(_produce(out_dir, spec, split, index) for split, index in slots)


def _produce(out_dir: Path, spec: GameSpec, split: str, index: int) -> tuple[str, str]:
    reasons = []
    for attempt in range(_MAX_ATTEMPTS):
        files = make_candidate(spec, split, index, attempt)
        if files is None:
            continue
        name = f"{split}/{files.folder}/{files.trial}"
        target = out_dir / DATA_FOLDER / name
        digest = _digest(files.game, files.trajectory)
        if target.exists() and _digest_on_disk(target) == digest:
            return name, digest  # verified and written by an earlier run that was stopped
        fault = _verifier().fault(files.game, files.walkthrough)
        if fault is None:
            _write_game(out_dir / _PARTIAL / f"{split}-{index}", target, files)
            return name, digest
        reasons.append(fault)
    raise TaskError(
        f"no solvable game in {_MAX_ATTEMPTS} attempts for {split} game {index} of {spec}: {reasons[:3] or 'no room'}. "
        "Try: --receptacles with a wider range, or a larger --objects-per-receptacle"
    )


def _write_game(partial: Path, target: Path, files: GameFiles) -> None:
    """Both files or none: they are written aside and moved into place as one folder."""
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / GAME_NAME).write_bytes(files.game)
    (partial / TRAJECTORY_NAME).write_bytes(files.trajectory)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)


# --- the folder -----------------------------------------------------------------------------------------------------


def _prepared(out_dir: Path, spec: GameSpec) -> bool:
    """Whether `out_dir` is finished; marks a fresh folder as being made from `spec`.

    Raises:
        ConfigError, TaskError: the folder is not ours, was made from another spec, or has an unreadable manifest.
    """
    path = out_dir / MANIFEST
    if not path.exists():
        # Ours is also what is left where the disk was full before anything could be written.
        if strangers := sorted(p.name for p in out_dir.iterdir() if p.name not in (LOCK, f"{MANIFEST}.new")):
            raise ConfigError(
                f"{out_dir} holds {strangers[:5]} but no {MANIFEST}: it was not made by this generator. "
                "Try: --out <empty folder>, or delete this one"
            )
        _write_manifest(out_dir, spec, None)
        return False
    try:
        manifest = json.loads(path.read_text("utf-8"))
        made_from, complete = manifest["made_from"], manifest["complete"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise TaskError(f"{path} cannot be read ({error!r}). Try: delete the folder {out_dir} and run again") from error
    expected = _made_from(spec)
    if made_from != expected:
        known = made_from if isinstance(made_from, dict) else {}
        differing = sorted(k for k in {*known, *expected} if known.get(k) != expected.get(k))
        listed = ", ".join(f"{k} is {known.get(k)!r} there and {expected.get(k)!r} here" for k in differing)
        raise ConfigError(
            f"{out_dir} holds games of another spec ({listed}). Try: --out <another folder> (in a run "
            "env.alfworld.generated.dir=<another folder>), or the values of that spec, or delete the folder"
        )
    return bool(complete)


def _reused(out_dir: Path, spec: GameSpec) -> Manifest:
    """The manifest of a finished folder, after its files were compared with it."""
    digest = json.loads((out_dir / MANIFEST).read_text("utf-8")).get("digest")
    data = out_dir / DATA_FOLDER
    trials = sorted(p.parent for p in data.glob(f"*/*/*/{GAME_NAME}"))
    expected = sum(getattr(spec, split) for split in SPLITS)
    if len(trials) != expected:
        raise TaskError(
            f"{data} holds {len(trials)} games, but {MANIFEST} records {expected}. Try: delete {out_dir} and run again"
        )
    if _combined({t.relative_to(data).as_posix(): _digest_on_disk(t) for t in trials}) != digest:
        raise TaskError(f"games in {data} differ from the digest in {MANIFEST}. Try: delete {out_dir} and run again")
    return Manifest(spec, expected, digest)


def _made_from(spec: GameSpec) -> dict[str, object]:
    """The spec as JSON would give it back, with the versions that the bytes depend on."""
    versions = {"generator": GENERATOR_VERSION, "alfworld": version("alfworld")}
    return json.loads(json.dumps({**versions, **asdict(spec)}))


def _write_manifest(out_dir: Path, spec: GameSpec, manifest: Manifest | None) -> None:
    content: dict[str, object] = {"made_from": _made_from(spec), "complete": manifest is not None}
    if manifest:
        content |= {"games": manifest.games, "digest": manifest.digest}
    aside = out_dir / f"{MANIFEST}.new"
    aside.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    aside.replace(out_dir / MANIFEST)


def _digest(game: bytes, trajectory: bytes) -> str:
    return hashlib.sha256(hashlib.sha256(game).digest() + hashlib.sha256(trajectory).digest()).hexdigest()


def _digest_on_disk(trial: Path) -> str:
    try:
        return _digest((trial / GAME_NAME).read_bytes(), (trial / TRAJECTORY_NAME).read_bytes())
    except FileNotFoundError as error:
        return f"missing {error.filename}"


def _combined(digests: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


# --- command line ---------------------------------------------------------------------------------------------------


def _receptacle_range(text: str) -> tuple[int, int] | None:
    if text == "all":
        return None
    low, _, high = text.partition("-")
    return int(low), int(high or low)


_KINDS = ", ".join(kind.value for kind in TaskKind)


def _task_kind(text: str) -> TaskKind:
    try:
        return TaskKind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not one of {_KINDS}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agent_system.environments.alfworld.generate",
        description="Generate solvable ALFWorld games, each won in the real engine before it is written.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    default = GameSpec()
    parser.add_argument("--out", type=Path, required=True, help="folder to make; finished folders are reused")
    parser.add_argument(
        "--receptacles",
        type=_receptacle_range,
        default="-".join(map(str, default.receptacles or ())) or "all",
        help="a range such as 4-6, or 'all' of the floor plan",
    )
    for name, text in (
        ("same_kind", "most receptacles of one kind (only with a range)"),
        ("objects_per_receptacle", "objects that fill a receptacle (the goal's own may be more)"),
        ("max_instances", "most objects of one kind"),
        ("train", "games to train on"),
        ("valid_seen", "other games in the scenes of train"),
        ("valid_unseen", "games in scenes of their own"),
        ("seed", "seed of everything"),
    ):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(default, name), help=text)
    parser.add_argument(
        "--task-types",
        nargs="+",
        type=_task_kind,
        default=argparse.SUPPRESS,  # that of GameSpec; the formatter would print the enumeration as Python does
        metavar="KIND",
        help=f"some of {_KINDS} (default: all)",
    )
    parser.add_argument("--workers", type=int, default=usable_cpus(), help="processes; changes the speed only")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: generates or reuses games, and prints the value of ALFWORLD_DATA for them."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        values = {f.name: getattr(options, f.name) for f in fields(GameSpec) if f.name in options}
        if "task_types" in values:
            values["task_types"] = tuple(values["task_types"])
        spec = GameSpec(**values)
        manifest = generate_games(options.out, spec, workers=options.workers, progress=True)
    except (ConfigError, TaskError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(
        f"{manifest.games} games in {options.out} (digest {manifest.digest[:12]}): "
        f"ALFWORLD_DATA={options.out.resolve()}"
    )


if __name__ == "__main__":
    main()
