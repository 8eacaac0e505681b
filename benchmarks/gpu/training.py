# SPDX-License-Identifier: Apache-2.0
"""Real training steps on a GPU: seconds by phase, tokens a second, memory, and whether vLLM's policy is the trainer's.

    python -m recipe.hiper.cold_start profile=cpu                           # makes the small model, prints its folder
    python benchmarks/gpu/training.py small --warm-start <that folder>      # 2 steps of it
    python benchmarks/gpu/training.py large --warm-start warm               # the Qwen2.5-1.5B architecture
    python benchmarks/gpu/training.py large --warm-start warm --lora        # adapters instead of all weights
    python benchmarks/gpu/training.py large --warm-start warm --lockstep    # also with episodes that wait for others
    python benchmarks/gpu/training.py large --model Qwen/Qwen2.5-1.5B-Instruct     # real weights
    python benchmarks/gpu/training.py large --warm-start warm --architecture tiny --rehearse \
        --set data.train_batch_size=4                                          # the same settings without a GPU

Games are generated. The large model has random weights unless --model names others, and the tokenizer of --warm-start:
its replies are noise of full length, so an episode lasts all of its --turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import describe
from on_cpu import ON_CPU, environment
from random_model import ARCHITECTURES, save

ROOT = Path(__file__).resolve().parents[2]
PHASES = ("gen", "old_log_prob", "ref", "values", "adv", "update_critic", "update_actor", "update_weights", "step")
SMALL_ROOMS = (
    "env.alfworld.games=generated",
    "env.alfworld.generated.receptacles=[4,6]",
    "env.alfworld.generated.same_kind=2",
    "env.alfworld.generated.objects_per_receptacle=2",
    "env.alfworld.generated.max_instances=2",
    "env.alfworld.generated.train=132",
    "env.alfworld.generated.valid_seen=12",
    "env.alfworld.generated.valid_unseen=12",
    "env.val_tasks=12",
)
SHORT = ("trainer.save_freq=-1", "trainer.test_freq=-1", "trainer.val_before_train=False", "trainer.critic_warmup=0")


def overrides(options: argparse.Namespace, model: str) -> list[str]:
    """The command line of the run, without its folder."""
    result = ["profile=gpu", *SMALL_ROOMS, *SHORT, f"trainer.total_training_steps={options.steps}"]
    result += [f"{key}={value}" for key, value in ON_CPU.items() if options.rehearse]
    result += [f"actor_rollout_ref.model.path={model}", f"env.max_steps={options.turns}"]
    result += ["algorithm.updates_per_step=4"]
    if options.what == "small":
        result += ["model=tiny", "data.train_batch_size=64", "env.history_length=1"]
        if not options.rehearse:  # seconds to compile and to capture graphs of a model that needs neither
            result += ["actor_rollout_ref.rollout.enforce_eager=true"]
    else:
        result += ["model=qwen2.5-1.5b", "data.train_batch_size=128"]
        result += ["data.max_prompt_length=1536", f"data.max_response_length={options.reply}"]
        result += ["env.alfworld.generated.receptacles=[14,18]"]  # prompts of some 800 tokens, as the published games'
    if options.lora:
        result += ["actor_rollout_ref.model.lora_rank=32", "actor_rollout_ref.model.lora_alpha=64"]
        result += ["critic.model.lora_rank=32", "critic.model.lora_alpha=64", "actor_rollout_ref.actor.optim.lr=2e-5"]
    return result + options.set


def run(arguments: list[str], folder: Path, variables: dict[str, str]) -> list[dict]:
    """Train in a separate process with more environment variables, and return the metrics of its steps.

    Raises:
        SystemExit: the run failed.
    """
    command = [sys.executable, "-m", "recipe.hiper.main", f"run_dir={folder}", *arguments]
    print(" ".join(command[1:]), flush=True)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    code = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path} | variables).returncode
    if code:
        logs = sorted((folder / "logs").glob("*.log"))
        last = logs[-1].read_text(encoding="utf-8", errors="replace")[-8000:] if logs else ""
        raise SystemExit(f"{last}\nthe run failed with status {code}. Try: --keep FOLDER, which keeps its whole output")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["step"] >= 1]


def table(steps: list[dict]) -> str:
    """Seconds by phase of every step, and what they were spent on."""
    lines = [f"{'step':36s}" + "".join(f"{row['step']:>10d}" for row in steps)]
    lines += [f"{'seconds: ' + name:36s}" + _cells(steps, f"timing_s/{name}", ".2f") for name in PHASES]
    seconds = [row["timing_s/step"] for row in steps]
    tokens = [row["perf/total_num_tokens"] for row in steps]
    replies = [row["rollout/turns"] * row["response_length/mean"] for row in steps]
    generating = [row["timing_s/gen"] for row in steps]
    derived = {
        "tokens of a step": tokens,
        "tokens a second, whole step": [t / s for t, s in zip(tokens, seconds, strict=True)],
        "written tokens a second, rollout": [t / s for t, s in zip(replies, generating, strict=True)],
    }
    lines += [f"{name:36s}" + "".join(f"{value:10.0f}" for value in values) for name, values in derived.items()]
    for name, key, form in (
        ("turns", "rollout/turns", ".0f"),
        ("prompt tokens, mean", "prompt_length/mean", ".1f"),
        ("reply tokens, mean", "response_length/mean", ".1f"),
        ("success rate", "rollout/success_rate", ".3f"),
        ("|p(vLLM) - p(trainer)|, largest", "training/rollout_probs_diff_max", ".1e"),
        ("|p(vLLM) - p(trainer)|, mean", "training/rollout_probs_diff_mean", ".1e"),
        ("MFU of the actor's update", "perf/mfu/actor", ".3f"),
        ("MFU of the critic's update", "perf/mfu/critic", ".3f"),
        ("GiB allocated, most, trainer", "perf/max_memory_allocated_gb", ".1f"),
        ("gradient norm, actor", "actor/grad_norm", ".3g"),
        ("gradient norm, critic", "critic/grad_norm", ".3g"),
    ):
        lines.append(f"{name:36s}" + _cells(steps, key, form))
    return "\n".join(lines)


def _cells(steps: list[dict], key: str, form: str) -> str:
    return "".join(f"{row[key]:>10{form}}" if row.get(key) is not None else f"{'-':>10s}" for row in steps)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("small", "large"))
    parser.add_argument("--steps", type=int, default=2, help="training steps (default: 2; the first one also warms up)")
    parser.add_argument("--turns", type=int, default=20, help="most turns of an episode (default: 20)")
    parser.add_argument("--reply", type=int, default=45, help="most tokens of a reply of the large model (default: 45)")
    parser.add_argument("--lora", action="store_true", help="train adapters of rank 32 only")
    parser.add_argument("--lockstep", action="store_true", help="run again with env.lockstep=true")
    parser.add_argument("--model", help="folder or name of a model to use instead of random weights")
    parser.add_argument(
        "--architecture", choices=ARCHITECTURES, default="qwen2.5-1.5b",
        help="of the large model (default: qwen2.5-1.5b)",
    )  # fmt: skip
    parser.add_argument("--rehearse", action="store_true", help="on a CPU: profile=gpu but for the device")
    parser.add_argument(
        "--warm-start",
        type=Path,
        help="folder of a warm-started model (python -m recipe.hiper.cold_start makes one); the large one takes its "
        "tokenizer",
    )
    parser.add_argument("--keep", type=Path, help="folder for the run (default: a temporary one)")
    parser.add_argument("--set", nargs="*", default=[], metavar="OVERRIDE", help="Hydra overrides for the run")
    options = parser.parse_args()
    if not (options.model or options.warm_start):
        parser.error("no model is selected. Try: --warm-start FOLDER, or --model NAME")
    if options.warm_start and not (options.warm_start / "tokenizer.json").exists():
        parser.error(
            f"--warm-start {options.warm_start} holds no tokenizer.json. Try: a folder of recipe.hiper.cold_start"
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)).absolute()  # the run has another working directory
        model = options.model or str(_model(options, folder / "model"))
        print(_machine(options.rehearse), flush=True)
        variables = environment() if options.rehearse else {}
        for name, more in [("run", [])] + ([("lockstep", ["env.lockstep=true"])] if options.lockstep else []):
            print(f"\n{name}\n{table(run([*overrides(options, model), *more], folder / name, variables))}", flush=True)


def _model(options: argparse.Namespace, folder: Path) -> Path:
    if options.what == "small":
        return options.warm_start.absolute()
    return save(options.architecture, options.warm_start, folder, "cpu" if options.rehearse else "cuda")


def _machine(is_rehearsal: bool) -> str:
    machine = describe("torch", "vllm", "verl", "ray", "transformers")
    if not is_rehearsal:
        import torch

        machine = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {machine}"
    return machine


if __name__ == "__main__":
    main()
