# SPDX-License-Identifier: Apache-2.0
"""How long the preflight takes, and what it says on sound and on wrong machines.

    python benchmarks/preflight.py                  # about three minutes
    python benchmarks/preflight.py --only "RAY_ADDRESS"

Each row is a real `python -m recipe.hiper.doctor` in a separate process, whose environment, limits or folders are made
wrong first. Seconds are of the whole command, the imports included. Small disks are tmpfs, and need the right to mount.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from machine import describe

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Machine:
    """A sound or a wrong machine.

    Attributes:
        name: of the row.
        overrides: of the command.
        environment: variables to add.
        limit: called in the new process before the command.
        expected: a part of the line that it must print; None: no problem.
    """

    name: str
    overrides: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    limit: Callable[[], None] | None = None
    expected: str | None = None


def _few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _model(folder: Path, change: Callable[[Path], None]) -> str:
    """The override of a small model's folder after a change."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from recipe.hiper.cold_start.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["open the box", "look"], max_vocabulary=300, model_max_length=1024, max_phrases=0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        max_position_embeddings=1024,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    change(folder)
    return f"actor_rollout_ref.model.path={folder}"


def _drop(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return change


def _without_template(folder: Path) -> None:
    _drop("chat_template.jinja")(folder)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop("chat_template", None)
    path.write_text(json.dumps(content), encoding="utf-8")


def _longer_vocabulary(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"vocab_size": content["vocab_size"] + 64}), encoding="utf-8")


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs; nothing where mounting is not allowed, and the row then shows that no problem was found."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
    try:
        yield folder
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)


def machines(folder: Path, full: Path, without_inodes: Path, read_only: Path) -> list[Machine]:
    """Every row."""
    address = f"127.0.0.1:{_free_port()}"
    empty = folder / "empty"
    empty.mkdir()
    models = {
        "weights": (_drop("model.safetensors"), "holds no weights"),
        "tokenizer": (_drop("tokenizer.json", "tokenizer_config.json"), "holds no tokenizer"),
        "chat template": (_without_template, "has no chat template"),
    }
    return [
        Machine("the CPU profile"),
        Machine("model=smollm2", ("model=smollm2",)),
        Machine("the GPU profile without a GPU", ("profile=gpu",), expected="sees no GPU"),
        Machine("RAY_ADDRESS that nobody answers", environment={"RAY_ADDRESS": address}, expected=address),
        Machine("RAY_ADDRESS that is none", environment={"RAY_ADDRESS": "head"}, expected="is not an address"),
        Machine("RAY_ADDRESS=auto, no Ray", environment={"RAY_ADDRESS": "auto"}, expected="no Ray runs"),
        Machine("a long RAY_TMPDIR", environment={"RAY_TMPDIR": str(folder / ("x" * 80))}, expected="RAY_TMPDIR"),
        Machine("1,024 open files", limit=_few_files, expected="ulimit"),
        Machine("a full disk", ("model=smollm2", f"run_dir={full}/run"), expected="MB free"),
        Machine("a disk without inodes", (f"run_dir={without_inodes}/run",), expected="df -i"),
        Machine("TMPDIR on a read-only disk", environment={"TMPDIR": str(read_only)}, expected="TMPDIR"),
        *(
            Machine(f"a model without its {name}", (_model(folder / name, change),), expected=expected)
            for name, (change, expected) in models.items()
        ),
        Machine(
            "a model with a longer vocabulary than its tokenizer",
            (_model(folder / "vocabulary", _longer_vocabulary),),
            expected="longer than the tokenizer",
        ),
        Machine(
            "an evaluation without a checkpoint",
            (f"run_dir={empty}", "trainer.val_only=true"),
            expected="no complete checkpoint",
        ),
        Machine("two wrong values", ("algorithm.gamma=2", "env.max_steps=0"), expected="algorithm.gamma=2"),
    ]


def examine(machine: Machine, folder: Path) -> tuple[float, list[str]]:
    """Seconds of the command, and the problems that it printed."""
    run = () if any(override.startswith("run_dir=") for override in machine.overrides) else (f"run_dir={folder}/run",)
    environment = {name: value for name, value in os.environ.items() if name not in ("VERL_PLATFORM", "RAY_ADDRESS")}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "recipe.hiper.doctor", *machine.overrides, *run],
        cwd=ROOT,
        env=environment | machine.environment,
        preexec_fn=machine.limit,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - began
    problems = [line[4:] for line in done.stderr.splitlines() if line.startswith("  - ")]
    if (done.returncode == 0) != (not problems) or "Traceback" in done.stderr:
        raise SystemExit(f"{machine.name}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return seconds, problems


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    print(describe("torch", "ray", "transformers"), end="\n\n", flush=True)
    print("| machine | seconds | what is printed |\n|---|---|---|", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="preflight-"))
    missed = []
    with (
        small_disk(folder / "full", "size=100m") as full,
        small_disk(folder / "few", "nr_inodes=20") as few,
        small_disk(folder / "read-only", "ro") as read_only,
    ):
        for machine in machines(folder, full, few, read_only):
            if args.only not in machine.name:
                continue
            seconds, problems = examine(machine, folder)
            shown = [line.replace(str(folder), "...") for line in problems] or ["no problem"]
            print(f"| {machine.name} | {seconds:.1f} | {'<br>'.join(shown)} |", flush=True)
            if (machine.expected or "") not in "".join(problems) or bool(problems) != bool(machine.expected):
                missed.append(machine.name)
    shutil.rmtree(folder)
    if missed:
        raise SystemExit(f"another result than expected: {', '.join(missed)}")


if __name__ == "__main__":
    main()
