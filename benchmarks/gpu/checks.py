# SPDX-License-Identifier: Apache-2.0
"""What a GPU must give: the same numbers as a CPU, and how fast the parts of an update are on it.

    python benchmarks/gpu/checks.py                                   # on one GPU, about a minute
    python benchmarks/gpu/checks.py --device cpu --architecture tiny --tokens 600    # try it without one

Estimators on the device against the CPU; attention over packed rows against float64; policy and critic in bf16 on
packed rows against float32 on padded ones; seconds and memory of an update of the policy with logits of the replies
only, with verl's fused kernel over all positions, and with verl's own path. Models have random weights. Ends with
status 1 if something disagrees.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from random_model import ARCHITECTURES, make
from tensordict import TensorDict
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import describe
from transformers import AutoModelForTokenClassification
from verl.utils import tensordict_utils as tu
from verl.utils.experimental.torch_functional import FusedLinearForPPO
from verl.utils.torch_functional import entropy_from_logits
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.utils.padding import no_padding_2_padding

from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.estimators.registry import (
    ESTIMATORS,
    EstimatorConfig,
    TurnGrids,
    estimate_advantages,
    find_estimator,
    whiten_advantages,
)
from recipe.hiper.estimators.shaping import ShapingConfig
from recipe.hiper.trainer.critic import Float32Heads
from verl_plugins.packed.attention import NAME, packed_attention
from verl_plugins.packed.engines import PackedFSDPEngineWithLMHead

REPLY = 45
PROMPT = 800
"""Tokens of a turn: what the published runs had on ALFWorld."""
TEMPERATURE = 0.8
AS_GOOD = 1.3
"""Packed rows in bf16 may be this much farther from float32 than padded ones are."""


class Report:
    """Lines of `what, value, limit`, and whether every value is within its limit."""

    def __init__(self):
        self.rows: list[dict] = []

    def add(self, what: str, value: float, unit: str = "", limit: float | None = None) -> None:
        """Print and keep a value. It has to be a number at most `limit`, if there is one."""
        wrong = limit is not None and not value <= limit
        self.rows.append({"what": what, "value": value, "unit": unit, "limit": limit, "wrong": wrong})
        shown = f"{value:.3g} {unit}".rstrip()
        print(f"{what:78s} {shown:>14s}" + (f"  (at most {limit:g})" if limit else "") + ("  WRONG" if wrong else ""))


def seconds(device: str, repeats: int, work: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of a call after one to warm up, and the most memory in bytes (0 on CPU)."""
    is_cuda = device == "cuda"
    times = []
    for repeat in range(repeats + 1):
        if is_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        work()
        if is_cuda:
            torch.cuda.synchronize()
        if repeat:
            times.append(time.perf_counter() - started)
    return statistics.median(times), torch.cuda.max_memory_allocated() if is_cuda else 0.0


def relative(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    actual, expected = actual.detach(), expected.detach().double()
    return float((actual.double().to(expected.device) - expected).norm() / expected.norm())


def check_estimators(report: Report, device: str) -> None:
    """Every estimator on the device gives the CPU's advantages and targets."""
    generator = torch.Generator().manual_seed(0)
    episodes, turns = 128, 50
    lengths = torch.randint(1, turns + 1, (episodes, 1), generator=generator)
    valid = torch.arange(turns) < lengths
    coin = lambda p: torch.rand(episodes, turns, generator=generator) < p  # noqa: E731
    grids = dict(
        rewards=torch.randn(episodes, turns, generator=generator) * valid,
        valid=valid,
        boundary=(coin(0.3) | (torch.arange(turns) == 0)) & valid,
        copied_exactly=coin(0.8),
        comparable=coin(0.9),
        well_formed=coin(0.9),
        admissible=coin(0.8),
        terminated=(torch.arange(turns) == lengths - 1) & coin(0.6),
        anchor=torch.randint(40, (episodes, turns), generator=generator),
        group=torch.arange(episodes) // 8,
        switch_probability=torch.rand(episodes, turns, generator=generator),
        values=torch.randn(episodes, turns, 3, generator=generator),
        bootstrap=torch.randn(episodes, 3, generator=generator),
    )
    there = {name: grid.to(device) for name, grid in grids.items()}
    shaping = ShapingConfig(invalid_action_penalty_coef=0.1, keep_penalty=-0.3, keep_consistency_penalty=-0.3)
    hae = HAEConfig(gamma=0.99, lam_turn=0.95, lam_seg=0.9, lam_boundary=0.5, bootstrap_truncated=True)
    for name in ESTIMATORS:
        if find_estimator(name).is_verls_own:
            continue
        config = EstimatorConfig(name=name, hae=hae, shaping=shaping)
        results = []
        for turns_of in (grids, there):
            actual = estimate_advantages(TurnGrids(**turns_of), config)
            advantages = whiten_advantages(TurnGrids(**turns_of), actual, config)
            results.append([*advantages, actual.targets])
        worst = max(float((a - b.cpu()).abs().max()) for a, b in zip(*results, strict=True))
        report.add(f"{name} on the {device} against the CPU, largest difference", worst, limit=1e-4)


def check_attention(report: Report, device: str, architecture: str, tokens: int) -> None:
    """Packed bf16 attention against float64, and its time against attention with a mask of tokens by tokens."""
    sizes = ARCHITECTURES[architecture]
    heads, groups = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    head_size = sizes["hidden_size"] // heads
    lengths = row_lengths(tokens)
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0).to(device)
    torch.manual_seed(1)
    shape = lambda n: (1, n, sum(lengths), head_size)  # noqa: E731
    q, k, v = (torch.randn(shape(n), device=device) for n in (heads, groups, groups))
    half = [x.to(torch.bfloat16).requires_grad_() for x in (q, k, v)]
    exact = [x.detach().double().requires_grad_() for x in half]
    attend = partial(packed_attention, None, attention_mask=None, position_ids=positions)
    weight = torch.randn_like(attend(*half)[0])
    grads = []
    for inputs in (half, exact):
        attended = attend(*inputs)[0]
        grads.append([attended, *torch.autograd.grad((attended * weight.to(attended.dtype)).sum(), inputs)])
    for name, actual, expected in zip(("output", "dq", "dk", "dv"), *grads, strict=True):
        report.add(
            f"packed attention in bf16 against float64, {name}, relative", relative(actual, expected), limit=2e-2
        )

    def step(function) -> None:
        out = function()
        torch.autograd.grad(out, half, weight)

    row_of = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)
    mask = (row_of.unsqueeze(1) == row_of).tril_()

    def masked() -> Tensor:
        """As transformers does it: with a mask there are no fast kernels for grouped keys, so they are repeated."""
        query, *grouped = half
        key, value = (x.repeat_interleave(heads // groups, dim=1) for x in grouped)
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)

    ours, _ = seconds(device, 5, lambda: step(lambda: attend(*half)[0]))
    theirs, _ = seconds(device, 3, lambda: step(masked))
    report.add(f"attention of one layer, {sum(lengths)} packed tokens, forward and backward", ours * 1e3, "ms")
    report.add("  the same with a mask of tokens by tokens (sdpa)", theirs * 1e3, "ms")
    report.add("  times faster", theirs / ours)


def row_lengths(tokens: int) -> list[int]:
    """Lengths of rows around `PROMPT + REPLY`, `tokens` in all; shorter ones where there is room for two only."""
    usual = min(PROMPT + REPLY, max(2 * REPLY, tokens // 3))
    generator = torch.Generator().manual_seed(2)
    lengths: list[int] = []
    while (left := tokens - sum(lengths)) > 0:
        spread = int(torch.randint(-usual // 4, usual // 4 + 1, (1,), generator=generator))
        lengths.append(min(left, max(REPLY + 1, usual + spread)))
    if lengths[-1] <= REPLY:
        last = lengths.pop()
        lengths[-1] += last
    return lengths


def micro_batch(tokens: int, vocabulary: int, device: str, *, packed: bool) -> TensorDict:
    """Turns as verl passes them to an engine."""
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(vocabulary, (length,), generator=generator) for length in row_lengths(tokens)]
    nested = lambda parts: torch.nested.as_nested_tensor(list(parts), layout=torch.jagged)  # noqa: E731
    data = TensorDict(
        {
            "input_ids": nested(rows),
            "position_ids": nested(torch.arange(len(row)) for row in rows),
            "prompts": nested(row[:-REPLY] for row in rows),
            "responses": nested(row[-REPLY:] for row in rows),
        },
        batch_size=len(rows),
    ).to(device)
    tu.assign_non_tensor(data, use_remove_padding=packed, temperature=TEMPERATURE, calculate_entropy=True)
    return data


def bare(engine_class: type) -> FSDPEngineWithLMHead:
    """An engine for its two methods that prepare inputs and outputs, without processes and FSDP."""
    engine: Any = object.__new__(engine_class)
    engine.pad_to_length = engine.use_ulysses_sp = False
    engine.engine_config = SimpleNamespace(entropy_checkpointing=False, entropy_from_logits_with_chunking=False)
    engine.compute_entropy_from_logits = entropy_from_logits
    engine._gather_and_unpad_packed = lambda x, pad_size: x
    return engine


def policy_outputs(engine, model, data: TensorDict) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of the replies, `[rows, reply]`."""
    inputs, arguments = engine.prepare_model_inputs(data)
    actual = engine.prepare_model_outputs(model(**inputs, use_cache=False), arguments, data, None)
    return tuple(no_padding_2_padding(actual[name], data) for name in ("log_probs", "entropy"))


def fused_outputs(model, data: TensorDict) -> tuple[Tensor, Tensor]:
    """The same by verl's fused kernel, of all positions."""
    ids, positions = (data[name].values().unsqueeze(0) for name in ("input_ids", "position_ids"))
    hidden = model.model(input_ids=ids, position_ids=positions, use_cache=False)[0]
    labels = torch.roll(ids, shifts=-1, dims=1)
    log_probs, entropy = FusedLinearForPPO().forward(hidden, model.lm_head.weight, labels, TEMPERATURE)
    offsets = data["input_ids"].offsets()
    return tuple(
        no_padding_2_padding(torch.nested.nested_tensor_from_jagged(x.squeeze(0).float(), offsets), data)
        for x in (log_probs, entropy)
    )


def check_policy(report: Report, device: str, architecture: str, tokens: int) -> None:
    """Log-probabilities in bf16 against float32 on padded rows; seconds and memory of an update three ways."""
    vocabulary = ARCHITECTURES[architecture]["vocab_size"]
    model = make(architecture, device, torch.bfloat16, attn_implementation=NAME)
    padded_model = make(architecture, device, torch.bfloat16, attn_implementation="sdpa")
    padded_model.load_state_dict(model.state_dict())
    few = {packed: micro_batch(min(tokens, 4096), vocabulary, device, packed=packed) for packed in (False, True)}
    with torch.no_grad():
        actual = policy_outputs(bare(PackedFSDPEngineWithLMHead), model, few[True])
        fused = fused_outputs(model, few[True])
        usual = policy_outputs(bare(FSDPEngineWithLMHead), padded_model, few[False])
        expected = policy_outputs(bare(FSDPEngineWithLMHead), padded_model.float(), few[False])
    del padded_model
    for name, ours, theirs, plain, exact in zip(
        ("log-probabilities", "entropies"), actual, fused, usual, expected, strict=True
    ):
        what = f"{name} of replies in bf16 against float32, mean difference"
        report.add(f"{what}, padded", mean_off(plain, exact))
        report.add(
            "  packed, logits of the replies only", mean_off(ours, exact), limit=AS_GOOD * mean_off(plain, exact)
        )
        report.add("  packed, verl's fused kernel", mean_off(theirs, exact))

    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()

    def update(outputs: Callable[[TensorDict], tuple[Tensor, Tensor]], data: TensorDict) -> None:
        model.zero_grad()
        log_probs, entropy = outputs(data)
        (log_probs.mean() + 0.001 * entropy.mean()).backward()

    ways = {
        "logits of the replies only": lambda data: policy_outputs(bare(PackedFSDPEngineWithLMHead), model, data),
        "verl's fused kernel (torch)": lambda data: fused_outputs(model, data),
        "verl without flash-attn": lambda data: policy_outputs(bare(FSDPEngineWithLMHead), model, data),
    }
    small = micro_batch(max(tokens // 4, 1), vocabulary, device, packed=True)
    whole = micro_batch(tokens, vocabulary, device, packed=True)
    times = {}
    for name, outputs in ways.items():
        for data in (small, whole) if "without" not in name else (small,):
            size = data["input_ids"].values().numel()
            took, memory = seconds(device, 2, partial(update, outputs, data))
            times[name, size] = took
            report.add(f"policy, forward and backward of {size} tokens, {name}", took, "s")
            report.add("  most memory", memory / 2**30, "GiB")
    size = small["input_ids"].values().numel()
    for name in list(ways)[1:]:
        report.add(f"times faster than {name}, {size} tokens", times[name, size] / times[next(iter(ways)), size])


def mean_off(actual: Tensor, expected: Tensor) -> float:
    """Mean absolute difference."""
    return float((actual.double() - expected.double()).abs().mean())


def critic(architecture: str, device: str, dtype: torch.dtype, attention: str) -> torch.nn.Module:
    """A critic as `recipe.hiper.trainer.critic` builds it, with three heads that are not zero."""
    config = make(architecture, "meta", dtype).config
    config.num_labels, config.classifier_dropout = 3, 0.0
    torch.manual_seed(0)
    with torch.device(device):
        module = AutoModelForTokenClassification.from_config(config, attn_implementation=attention).to(dtype)
        module.score = Float32Heads(config.hidden_size, 3)
        torch.nn.init.normal_(module.score.weight, std=0.02)
    return module


def check_critic(report: Report, device: str, architecture: str, tokens: int) -> None:
    """Three heads in float32 on a bf16 backbone: packed against padded, and against float32 throughout."""
    vocabulary = ARCHITECTURES[architecture]["vocab_size"]
    exact = critic(architecture, device, torch.bfloat16, "sdpa").float()  # weights that bf16 can hold
    data = {packed: micro_batch(min(tokens, 4096), vocabulary, device, packed=packed) for packed in (False, True)}

    def values(module, packed: bool) -> Tensor:
        """Of all tokens, packed, in float32."""
        inputs, _ = bare(FSDPEngineWithLMHead).prepare_model_inputs(data[packed])
        with torch.no_grad():
            out = module(**inputs, use_cache=False).logits
        if out.dtype != torch.float32:
            raise TypeError(f"the values are {out.dtype}: the heads do not compute in float32")
        return out.squeeze(0) if packed else out[inputs["attention_mask"].bool()]

    expected = values(exact, packed=False)
    off = {}
    for attention, packed in (("sdpa", False), (NAME, True)):
        module = critic(architecture, device, torch.bfloat16, attention)
        module.load_state_dict(exact.state_dict())
        off[packed] = relative(values(module, packed), expected)
    report.add("values of three heads, bf16 backbone against float32, relative, padded", off[False])
    report.add("  packed", off[True], limit=AS_GOOD * off[False])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="default: cuda")
    parser.add_argument("--architecture", default="qwen2.5-1.5b", choices=tuple(ARCHITECTURES))
    parser.add_argument("--tokens", type=int, default=32_768, help="of the largest micro-batch (default: 32768)")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args()
    machine = describe("torch", "transformers", "verl", "tensordict")
    if options.device == "cuda":
        machine = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {machine}"
    print(machine)
    report = Report()
    check_estimators(report, options.device)
    check_attention(report, options.device, options.architecture, options.tokens)
    check_critic(report, options.device, options.architecture, options.tokens)
    check_policy(report, options.device, options.architecture, options.tokens)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"machine": machine, "rows": report.rows}, indent=1) + "\n", encoding="utf-8")
    if any(row["wrong"] for row in report.rows):
        raise SystemExit("at least one value is above its limit: see the lines marked WRONG")


if __name__ == "__main__":
    main()
