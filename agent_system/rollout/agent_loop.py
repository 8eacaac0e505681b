# SPDX-License-Identifier: Apache-2.0
"""One episode as a coroutine: prompt, generate, parse once, step, until the environment stops.

verl runs one coroutine per episode, without lockstep: an episode that ends stops costing generations at once. Each turn
becomes one training sample (row). verl registers the class through `agent_loops.yaml`.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from omegaconf import DictConfig
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl.utils.profiler import simple_timer

from agent_system.environments.base import StopReason, TaskSpec
from agent_system.environments.env_worker import StepResult
from agent_system.environments.pool import EnvPool
from agent_system.errors import EnvironmentFault, RolloutFault
from agent_system.plan_execute.prompts import FittedPrompt, PromptStyle
from agent_system.plan_execute.protocol import TokenSpans, token_spans
from agent_system.plan_execute.turn import EpisodeAgent, Turn
from agent_system.rollout.environment_registry import environment_spec
from agent_system.rollout.failures import FailureLog
from agent_system.rollout.lockstep import FreeRunning, Lockstep
from agent_system.rollout.records import TurnRecord
from agent_system.rollout.seeds import derived_seed
from agent_system.rollout.stop_tokens import stop_token_ids
from agent_system.rollout.tokens import PromptEncoder, is_cut, reply_pieces

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpisodeSettings:
    """What an episode needs to know of the configuration.

    Attributes:
        style: prompt style, and with it the reply format.
        environment: names the environment in the prompt.
        max_steps: turns after which an episode is truncated (`env.max_steps`).
        history_length, history_observations: earlier turns in a prompt, see `EpisodeMemory`.
        prompt_budget: tokens of a prompt at most (`data.max_prompt_length`).
        system_prompt: content of the system message (`env.system_prompt`), see `PromptEncoder`.
        fault_retries: how often an episode is played again on the same task after its environment broke.
        pool: name of the pool of environment workers.
        failure_log: file that takes the episodes that could not be played.
        seed: the run's seed (`env.seed`), from which every request to the rollout engine derives its seed.
            None (`env.seeded_sampling=false`): requests draw from the engine's generator in the order of their arrival.
        bootstrap_row: add a row for the state after a truncated episode, for the critic to value.
        lockstep: play all episodes turn by turn together, as the peers do. For comparison only: finished episodes go
            on costing generations until the slowest one ends.
    """

    style: PromptStyle
    environment: str
    max_steps: int
    history_length: int
    history_observations: int | None
    prompt_budget: int
    system_prompt: str | None
    fault_retries: int
    pool: str
    failure_log: str
    seed: int | None
    bootstrap_row: bool
    lockstep: bool

    @classmethod
    def from_config(cls, config: DictConfig) -> EpisodeSettings:
        """Read the sections `env`, `data` and `algorithm` of the trainer's configuration."""
        env = config.env
        spec = environment_spec(env.env_name)
        return cls(
            style=spec.style(env.prompt_style, env.prompt_layout, env.short_keep),
            environment=spec.environment,
            max_steps=env.max_steps,
            history_length=env.history_length,
            history_observations=env.history_observations,
            prompt_budget=config.data.max_prompt_length,
            system_prompt=env.system_prompt,
            fault_retries=env.fault_retries,
            pool=env.pool_name,
            failure_log=env.failure_log,
            seed=env.seed if env.seeded_sampling else None,
            bootstrap_row=env.bootstrap_row,
            lockstep=env.lockstep,
        )


class EpisodeAgentLoop(AgentLoopBase):
    """Plays one episode and returns one `AgentLoopOutput` per turn, first turn first."""

    _lockstep = Lockstep()
    _pools: dict[str, EnvPool] = {}
    _encoders: dict[str, tuple[PromptEncoder, frozenset[int]]] = {}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.settings = EpisodeSettings.from_config(self.config)
        # There is an object of this class for each episode, and one model in a process.
        model = self.config.actor_rollout_ref.model.path
        if model not in self._encoders:
            encoder = PromptEncoder(self.tokenizer, self.apply_chat_template_kwargs, self.settings.system_prompt)
            self._encoders[model] = encoder, stop_token_ids(model, self.tokenizer)
        self.encoder, self.stop_ids = self._encoders[model]

    @property
    def pool(self) -> EnvPool:
        """The environment workers; attached to once per process."""
        name = self.settings.pool
        if name not in self._pools:
            self._pools[name] = EnvPool.attach(name)
        return self._pools[name]

    async def run(self, sampling_params: dict[str, Any], **kwargs) -> list[AgentLoopOutput]:
        """Play the task of this row of the data set; after a fault again, on the same task and seed.

        Retrying never changes which task is trained on: a fault does not depend on the reward, so the episodes that
        remain are drawn as the ones that were lost.

        The error of a failed episode is written to `env.failure_log`, where the trainer finds it.

        Raises:
            EnvironmentFault, RolloutFault: the environment, or the rollout engine, failed on every attempt.
            TaskError: the task cannot be played.
            PromptOverBudget: a prompt cannot be made short enough.
        """
        task = TaskSpec(**kwargs["task"])
        seed = None
        if self.settings.seed is not None:
            sample = (kwargs["split"], kwargs["global_steps"], kwargs["index"], kwargs["session_id"])
            seed = derived_seed(self.settings.seed, *map(str, sample))
        try:
            return await self._play_with_retries(task, kwargs["split"], sampling_params, seed)
        except Exception as error:
            FailureLog(self.settings.failure_log).record(task.task_id, error)
            raise

    async def _play_with_retries(
        self, task: TaskSpec, split: str, sampling_params: dict[str, Any], seed: int | None
    ) -> list[AgentLoopOutput]:
        retries = Counter[str]()
        while True:
            try:
                async with self._lockstep.episode(enabled=self.settings.lockstep) as wave:
                    rows = await self._play(task, split, sampling_params, wave, seed)
            except (EnvironmentFault, RolloutFault) as fault:
                source = "environment" if isinstance(fault, EnvironmentFault) else "engine"
                retries[source] += 1
                logger.warning("task %s, attempt %d: fault of the %s: %s", task.task_id, retries.total(), source, fault)
                if retries.total() > self.settings.fault_retries:
                    raise type(fault)(
                        f"task {task.task_id} failed on each of {retries.total()} attempts (faults of the environment: "
                        f"{retries['environment']}, of the rollout engine: {retries['engine']}). The last: {fault}. "
                        f"Try: env.fault_retries={2 * self.settings.fault_retries + 1}"
                    ) from fault
            else:
                for row in rows:
                    row.extra_fields["retries"] = {name: retries[name] for name in ("environment", "engine")}
                return rows

    async def _play(
        self, task: TaskSpec, split: str, sampling_params: dict[str, Any], wave: FreeRunning, seed: int | None
    ) -> list[AgentLoopOutput]:
        settings = self.settings
        agent = EpisodeAgent(
            settings.style,
            settings.history_length,
            settings.environment,
            history_observations=settings.history_observations,
        )
        rows: list[AgentLoopOutput] = []
        records: list[TurnRecord] = []
        session = await self.pool.open(task, settings.max_steps)
        try:
            observation, info = session.observation, session.info
            while True:
                agent.observe(observation, info["admissible_actions"], info["task"])
                fitted = agent.prompt(self.encoder.count, settings.prompt_budget)
                prompt_ids = self.encoder.encode(fitted.text)
                params = dict(sampling_params)
                if seed is not None:
                    params["seed"] = derived_seed(seed, agent.turn)
                generated, seconds = await self._generate(prompt_ids, params)
                pieces = reply_pieces(self.tokenizer, generated.token_ids, self.stop_ids)
                cut = is_cut(generated.token_ids, self.stop_ids)
                text = "".join(pieces)
                turn = agent.take(text)
                step = await session.step(turn.action)
                record = turn_record(task, split, fitted, text, cut, turn, token_spans(turn.reply, pieces), step)
                records.append(record)
                rows.append(self._row(prompt_ids, generated, record, seconds))
                observation, info = step.observation, step.info
                if step.terminated or step.truncated:
                    break
                await wave.turn_done()
            if settings.bootstrap_row and split == "train" and not step.terminated:
                agent.observe(observation, info["admissible_actions"], info["task"])
                rows.append(self._bootstrap_row(agent, observation, rows[-1], record))
        finally:
            await session.close()
        after_end = await wave.finish(lambda: self._generate(prompt_ids, params))
        return _with_return(rows, records, after_end)

    async def _generate(self, prompt_ids: list[int], sampling_params: dict[str, Any]):
        timing: dict[str, float] = {}
        with simple_timer("generate_sequences", timing):
            # A separate request id per turn: turns share no growing prefix, so there is no replica to stick to.
            generated = await self.server_manager.generate(
                request_id=uuid4().hex, prompt_ids=prompt_ids, sampling_params=dict(sampling_params)
            )
        if not generated.token_ids:
            raise RolloutFault("the rollout engine returned no token (the request was aborted)")
        return generated, timing["generate_sequences"]

    def _row(self, prompt_ids: list[int], generated, turn: TurnRecord, seconds: float) -> AgentLoopOutput:
        response_ids = list(generated.token_ids)
        return AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            response_mask=[1] * len(response_ids),
            response_logprobs=list(generated.log_probs) if generated.log_probs else None,
            metrics=AgentLoopMetrics(generate_sequences=seconds),
            extra_fields={**generated.extra_fields, **turn.to_fields()},
        )

    def _bootstrap_row(
        self, agent: EpisodeAgent, observation: str, last: AgentLoopOutput, turn: TurnRecord
    ) -> AgentLoopOutput:
        """The state an episode was cut in, as a row with one made-up token that no loss ever sees."""
        fitted = agent.prompt(self.encoder.count, self.settings.prompt_budget)
        record = TurnRecord(
            **{
                **turn.to_fields()["turn_record"],
                "turn": agent.turn,
                "prompt": fitted.text,
                "reply": "",
                "observation": observation,
                "reward": 0.0,
                "spans": ((0, 0), (0, 0), (0, 0)),
                "value_low": 0,
                "cut": False,
                "bootstrap": True,
            }
        )
        return AgentLoopOutput(
            prompt_ids=self.encoder.encode(fitted.text),
            response_ids=[self.tokenizer.eos_token_id],
            response_mask=[0],
            response_logprobs=[0.0] if last.response_logprobs is not None else None,
            metrics=AgentLoopMetrics(),
            extra_fields={**last.extra_fields, **record.to_fields()},
        )


def turn_record(
    task: TaskSpec,
    split: str,
    prompt: FittedPrompt,
    text: str,
    cut: bool,
    turn: Turn,
    spans: TokenSpans,
    step: StepResult,
) -> TurnRecord:
    """Everything that is kept of a turn.

    Args:
        text: the reply as it was generated.
        cut: whether it reached the length limit before its end.
        step: the environment's answer.
    """
    reply, decision = turn.reply, turn.decision
    ended = step.terminated or step.truncated
    return TurnRecord(
        task_id=task.task_id,
        kind=task.kind,
        split=split,
        turn=turn.index,
        prompt=prompt.text,
        reply=text,
        observation=turn.observation,
        switch=reply.switch if decision else "",
        subgoal=reply.subgoal,
        action=turn.action,
        problems=tuple(problem.value for problem in reply.problems),
        boundary=turn.opens_segment,
        subgoal_in_force=decision.subgoal if decision else "",
        copied_exactly=decision.copied_exactly if decision else False,
        comparable=decision.comparable if decision else False,
        admissible=turn.admissible,
        reward=float(step.reward),
        terminated=step.terminated,
        truncated=step.truncated,
        stop=_stop_reason(step).value if ended else "",
        won=bool(step.info.get("won", False)),
        score=float(step.info.get("score", 0.0)),
        spans=(spans.switch, spans.subgoal, spans.action),
        value_low=spans.value_low,
        dropped_turns=prompt.dropped_turns,
        observation_cut=prompt.observation_cut,
        cut=cut,
    )


def _stop_reason(step: StepResult) -> StopReason:
    if step.truncated and not step.terminated:
        return StopReason.STEP_LIMIT
    return StopReason.WON if step.info.get("won") else StopReason.FAILED


def _with_return(rows: list[AgentLoopOutput], turns: list[TurnRecord], after_end: int) -> list[AgentLoopOutput]:
    """Give every row the episode's return and length, the only form in which verl itself reads them."""
    total = sum(turn.reward for turn in turns)
    for row in rows:
        row.reward_score = total
        row.num_turns = len(turns)
        row.extra_fields["reward_extra_info"] = {}
        row.extra_fields["generations_after_end"] = after_end
    return rows
