# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face folder from a checkpoint of verl's FSDP2 engines, in float32 and with the value heads of a critic.

    python -m verl_plugins.export outputs/<run>/checkpoints/global_step_24/actor exported

`python -m verl.model_merger` rounds every weight to bf16, the value heads too, and its critic calls itself a language
model: who loads it as one gets no heads.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification, GenerationConfig

SHARD = re.compile(r"model_world_size_(\d+)_rank_0\.pt")
HEADS = "score.weight"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class ExportError(RuntimeError):
    """The checkpoint cannot be exported."""


def export(checkpoint: Path, target: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write model, configuration and tokenizer.

    Adapters are merged into the weights they belong to, in float32. A checkpoint with value heads becomes a model for
    token classification with one label for each head; its heads stay in float32.

    Args:
        checkpoint: folder `actor` or `critic` of a checkpoint.
        target: folder that does not exist yet.
        dtype: of the weights.

    Raises:
        ExportError: there is no such checkpoint, it holds adapters only, or the target exists.
    """
    if target.exists():
        raise ExportError(f"{target} exists. Try: another folder")
    state = merged_adapters(full_state(checkpoint), checkpoint)
    config = AutoConfig.from_pretrained(checkpoint / "huggingface")
    model_class = AutoModelForCausalLM
    if HEADS in state:
        model_class, config.num_labels = AutoModelForTokenClassification, state[HEADS].shape[0]
    with torch.device("meta"):
        model = model_class.from_config(config, dtype=dtype)
    model.load_state_dict(
        {name: x if name.startswith("score.") else x.to(dtype) for name, x in state.items()}, assign=True
    )
    model.tie_weights()
    generation = checkpoint / "huggingface" / "generation_config.json"
    if model.can_generate() and generation.exists():
        model.generation_config = GenerationConfig.from_pretrained(generation.parent)
    shutil.copytree(generation.parent, target, ignore=shutil.ignore_patterns("*.safetensors*", generation.name))
    model.save_pretrained(target)


def full_state(checkpoint: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, put together from the parts of its processes.

    Raises:
        ExportError: there is no part of rank 0.
    """
    first = next((path for path in sorted(checkpoint.glob("model_world_size_*.pt")) if SHARD.match(path.name)), None)
    if first is None:
        raise ExportError(
            f"{checkpoint} holds no model_world_size_N_rank_0.pt. Try: <run_dir>/checkpoints/global_step_N/actor"
        )
    state = _load(first)
    meshes = [x.device_mesh.mesh for x in state.values() if isinstance(x, DTensor)]
    ranks = meshes[0].reshape(-1, meshes[0].shape[-1])[0].tolist() if meshes else [0]  # of one replica
    others = [_load(first.with_name(first.name.replace("_rank_0.pt", f"_rank_{rank}.pt"))) for rank in ranks[1:]]
    return {name: _whole([part[name] for part in (state, *others)]) for name in state}


def _load(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=False)
    return state


def _whole(parts: list[Tensor]) -> Tensor:
    first = parts[0]
    if not isinstance(first, DTensor):
        return first
    placement = first.placements[-1]
    local = [part._local_tensor for part in parts if isinstance(part, DTensor)]
    return torch.cat(local, dim=placement.dim) if isinstance(placement, Shard) else local[0]


def merged_adapters(state: dict[str, Tensor], checkpoint: Path) -> dict[str, Tensor]:
    """The weights W + alpha / rank B A under the names of a model without adapters.

    Raises:
        ExportError: the weights W are not in the checkpoint (`save_lora_only`).
    """
    adapters = [name for name in state if ".lora_A." in name]
    if not adapters:
        return state
    meta = json.loads((checkpoint / "lora_train_meta.json").read_text(encoding="utf-8"))
    merged = {name: x for name, x in state.items() if ".lora_" not in name}
    for name in adapters:
        base = name.split(".lora_A.")[0] + ".base_layer.weight"
        if base not in merged:
            raise ExportError(
                f"{checkpoint} holds adapters without the weights that they belong to (save_lora_only=true). Try: "
                "python -m verl.model_merger, which writes the adapters as a PEFT folder"
            )
        down, up = state[name].float(), state[name.replace(".lora_A.", ".lora_B.")].float()
        merged[base] = merged[base].float() + meta["lora_alpha"] / meta["r"] * (up @ down)
    return {name.removeprefix("base_model.model.").replace(".base_layer.", "."): x for name, x in merged.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m verl_plugins.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="<run_dir>/checkpoints/global_step_N/actor, or .../critic")
    parser.add_argument("target", type=Path, help="folder to write; must not exist")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the weights; fp32 by default")
    options = parser.parse_args(arguments)
    try:
        export(options.checkpoint, options.target, DTYPES[options.dtype])
    except ExportError as error:
        parser.exit(1, f"{error}\n")
    print(f"written to {options.target}")


if __name__ == "__main__":
    main()
