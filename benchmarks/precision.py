# SPDX-License-Identifier: Apache-2.0
"""Is bf16 faster than float32 on this processor? Tokens a second of a language model in both, forward and backward.

python benchmarks/precision.py                       # SmolLM2's architecture with random weights
python benchmarks/precision.py --model <folder>
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from verl_plugins.cpu.processor import fastest_dtype, processor_flags

ROWS, TOKENS, REPLY = 8, 256, 32
SMOLLM2 = dict(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    tie_word_embeddings=True,
)


def best_seconds(run: Callable[[], None], repeats: int) -> float:
    """The fastest of some runs, after one that is not counted."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Hugging Face folder (default: random weights)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    options = parser.parse_args()
    flags = sorted(processor_flags() & {"amx_bf16", "avx512_bf16", "avx512f", "avx2"})
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"instructions: {' '.join(flags) or 'unknown'}; used for training: {fastest_dtype()}")
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if options.model:
            model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
        else:
            model = LlamaForCausalLM(LlamaConfig(**SMOLLM2)).to(dtype)
        ids = torch.randint(model.config.vocab_size, (ROWS, TOKENS))

        def forward(model=model, ids=ids) -> None:
            with torch.no_grad():
                model(input_ids=ids, logits_to_keep=REPLY, use_cache=False)

        def both(model=model, ids=ids) -> None:
            model(input_ids=ids, logits_to_keep=REPLY, use_cache=False).logits.float().logsumexp(-1).mean().backward()

        for phase, run in (("forward", forward), ("forward and backward", both)):
            rates[phase, name] = ROWS * TOKENS / best_seconds(run, options.repeats)
            print(f"{name:5s} {phase:21s} {rates[phase, name]:8.0f} tokens/s")
    for phase in ("forward", "forward and backward"):
        print(f"bf16 against float32, {phase}: {rates[phase, 'bf16'] / rates[phase, 'fp32']:.2f} times")


if __name__ == "__main__":
    main()
