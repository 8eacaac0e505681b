# SPDX-License-Identifier: Apache-2.0
"""The section `env`: what every environment has.

The sections of families of environments, such as `env.webshop`, are passed to `validation.read_settings`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from recipe.hiper.configuration.section import Section, SharedSection

LARGEST_SEED = 2**31 - 1
"""NumPy, PyTorch and vLLM all take seeds up to this one."""


class EpisodesPerTask(Section):
    n: int = Field(ge=1)
    """episodes per task; estimators of groups (grpo, rloo, gigpo) compare them and need at least 2"""


class WorkerResources(Section):
    num_cpus: float = Field(ge=0)
    """CPUs that Ray reserves for each environment process"""


class PoolSettings(Section):
    num_workers: int | None = Field(ge=1)
    """environment processes; null: as many as the episodes and the cores call for"""
    envs_per_worker: int | None = Field(ge=1)
    """environments in each process; null: the episodes are shared out evenly"""
    timeout_s: float = Field(gt=0)
    """seconds without an answer after which an environment process is restarted"""


class EnvironmentSettings(SharedSection):
    name: str = Field(min_length=1)
    """short name of the environment in folders and plots"""
    env_name: str = Field(min_length=1)
    """environment and reply format: `alfworld/AlfredTWEnvOptions` (plan-execute), `alfworld/AlfredTWEnv` (flat with
    `<think>`), `alfworld/AlfredTWEnvNothink` (flat); `WebshopOptions` (plan-execute), `Webshop` (flat);
    `TextCraftOptions` (plan-execute), `TextCraft` (flat); `module:NAME` for an environment of your own
    ([extending.md](extending.md))"""
    seed: int = Field(ge=0, le=LARGEST_SEED)
    """seed of the run: order of the training tasks, sampling, mini-batches. The held-out tasks never depend on it.
    Another seed is another run and needs another `run_dir`"""
    seeded_sampling: bool
    """every request to vLLM has a seed derived from the run's seed, step, task, sample and turn, so that two runs of
    one command sample the same replies ([how far this goes](#same-seed-same-run)). Generation takes 1.08
    times as long with 64 requests at once and 1.05 times with 16 (`python benchmarks/seeded_sampling.py --model
    <folder> --requests 64`, Intel Xeon, two cores); not measured on a GPU"""
    max_steps: int = Field(ge=1)
    """turns after which an episode is truncated"""
    history_length: int = Field(ge=0)
    """earlier turns that a prompt may show"""
    history_observations: int | None = Field(ge=0)
    """for how many of the latest of these turns a prompt shows the observation before the action; `null`: for all. A
    page of a shop is many times as long as an action, and the actions say which options are chosen"""
    prompt_style: Literal["full", "compact"]
    """format of the prompts; `full`: instructions, for an instruction-tuned model; `compact`: labelled lines, for the
    small model"""
    prompt_layout: Literal["rules_first", "rules_last"]
    """order of the full prompts; `rules_first`: rules and task, then history, observation and actions, so that vLLM's
    prefix cache reuses their beginning; `rules_last`: the rules of the reply format at the end. The compact prompts
    have one order"""
    short_keep: bool
    """a reply that keeps the sub-goal leaves its block out: fewer tokens, and no copy that can be wrong"""
    system_prompt: str | None
    """system message before every prompt, in rollouts, demonstrations and evaluation; `null`: none, so that the chat
    template writes its own text where it has one (Qwen2.5: 20 tokens); empty text: an empty message in its place"""
    rollout: EpisodesPerTask
    """episodes of one task"""
    val_tasks: int = Field(ge=1)
    """held-out tasks of a validation: always the same ones, in the proportions of the kinds of the split"""
    fault_retries: int = Field(ge=0)
    """how often an episode is played again on the same task after its environment broke"""
    lockstep: bool
    """episodes wait for each other after every turn, as in other implementations; only for comparison"""
    resources_per_worker: WorkerResources
    """resources of an environment process"""
    pool: PoolSettings
    """environment processes"""
    pool_name: str | None = Field(min_length=1)
    """name of the environment processes in Ray; filled in for every run"""
    kwargs: dict[str, Any]
    """arguments of `gymnasium.make` for every environment, for example `+env.kwargs.show_attributes=true` in the
    shop; the rest is filled in"""
    failure_log: str = Field(min_length=1)
    """file that records the episodes that could not be played"""
