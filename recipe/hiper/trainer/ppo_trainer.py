# SPDX-License-Identifier: Apache-2.0
"""HiPER's trainer: verl's synchronous V1 trainer with the advantages, the critic and the credit mask replaced.

Every method here overrides one of verl's and is called where verl calls it. Rows (turns) live in TransferQueue; this
file only moves data between them and the pure functions of `estimators`, `turn_batch` and `token_credit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from omegaconf import DictConfig, open_dict
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.padding import response_from_nested, response_to_nested

from agent_system.errors import HiPERError
from agent_system.rollout.seeds import derived_seed
from recipe.hiper.configuration.settings import HiPERSettings
from recipe.hiper.estimators.registry import find_estimator
from recipe.hiper.estimators.values import read_slots
from recipe.hiper.run_dir.checkpoints import checkpoint_path
from recipe.hiper.run_dir.recorder import RunRecorder
from recipe.hiper.run_dir.resume import checkpoint_to_resume, saves_checkpoints
from recipe.hiper.run_dir.stop_request import StopRequested, is_stop_requested
from recipe.hiper.trainer.checkpoint_writer import RANDOM_STATES, CheckpointWriter, random_states, set_random_states
from recipe.hiper.trainer.critic import head_fields, hierarchical_value_loss
from recipe.hiper.trainer.episode_records import episode_records
from recipe.hiper.trainer.feature_critic import FeatureCritic
from recipe.hiper.trainer.metrics import batch_metrics, credit_metrics, entropy_metrics, validation_metrics
from recipe.hiper.trainer.policy_distance import columns_to_read, policy_distance
from recipe.hiper.trainer.replay_guard import Heartbeat, SubmissionOrder, WatchedReplayBuffer
from recipe.hiper.trainer.token_credit import BatchCredit, batch_credit
from recipe.hiper.trainer.transfer import Batch, TurnReader, fetch, read_turns, stacked, store, tensors_only
from recipe.hiper.trainer.turn_batch import BatchTurns
from verl_plugins import value_features

TOKEN_CRITIC_METRICS = ("critic/values/", "critic/returns/", "critic/vf_explained_var", "critic/advantages/")
"""verl's statistics of one scalar value per token. Positions with and without a target are mixed in them."""


VALUE_HEADS = "value_heads.pt"
"""The critic on the policy's backbone, in a checkpoint."""


class AfterStep:
    """A backend of verl's Tracking that calls a function with what is logged."""

    def __init__(self, call: Callable[[Mapping[str, Any], int], None]):
        self._call = call

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """See the class."""
        self._call(data, step)


class NoSignalLeft(HiPERError):
    """The group filter left too few tasks to learn from."""


class HiPERTrainer(PPOTrainerSync):
    """Trains one model on whole episodes, with the advantages of `algorithm.adv_estimator`.

    An estimator that is verl's own (`gae`) is left to verl, but for the penalties of single turns.

    Args:
        config: verl's configuration, without HiPER's own keys (`settings.verl_config`).
        settings: HiPER's own keys.
        recorder: writes what the run leaves on disk.
    """

    global_steps: int

    def __init__(self, config: DictConfig, settings: HiPERSettings, recorder: RunRecorder):
        self.settings = settings
        self.recorder = recorder
        self._estimator = find_estimator(settings.estimator.name)
        self._reader = TurnReader()
        self._heartbeat: Heartbeat | None = None
        self._order: SubmissionOrder | None = None
        self._refilled = 0
        self._validation: dict[str, float] = {}
        self._save_is_due = False
        self._cursor: dict[str, Any] | None = None
        self._checkpoints: CheckpointWriter | None = None
        self._feature_critic = FeatureCritic(settings.feature_critic) if settings.feature_critic else None
        super().__init__(config)

    # ------------------------------------------------------------------ set-up

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        # By the configuration and not by this process, which may run on a machine without a GPU.
        if self.config.trainer.device == "cpu":
            # Only here: the import registers engines for CPUs, which a GPU run does not use.
            from recipe.hiper.trainer.cpu_workers import role_workers
        else:
            from recipe.hiper.trainer.cuda_workers import role_workers
        self.role_worker_mapping: dict[Role, Any] = role_workers(self.role_worker_mapping)

    def _build_replay_buffer(self) -> WatchedReplayBuffer:
        replay_buffer = super()._build_replay_buffer()
        replay_buffer.poll_interval = self.settings.poll_interval
        rollout = self.config.actor_rollout_ref.rollout
        return WatchedReplayBuffer(
            replay_buffer,
            sort=self._sort_rows,
            group_size={"train": rollout.n, "val": rollout.val_kwargs.n},
            observer=self._on_episodes,
            first_failure=self.recorder.first_failure,
            while_waiting=self._while_waiting,
        )

    def _sort_rows(self, batch: Batch) -> None:
        assert self._order is not None  # set by `fit` before there are rows
        self._order.sort(batch)

    def _while_waiting(self) -> None:
        self._require_no_stop_request()
        if self._heartbeat is not None:
            self._heartbeat.check()

    def _setup(self) -> None:
        self.recorder.stage("starting the policy, the critic and vLLM")
        super()._setup()
        if self._estimator.has_turn_values and self._feature_critic is None:
            one_head = self.settings.num_heads == 1  # a single loss has no other to be weighted against
            self.critic_wg.set_loss_fn(
                partial(
                    hierarchical_value_loss,
                    config=omega_conf_to_dataclass(self.config.critic),
                    num_heads=self.settings.num_heads,
                    coefficients=(1.0, 1.0, 1.0) if one_head else self.settings.value_coefficients,
                )
            )

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        for loader in (self.train_dataloader, self.val_dataloader):
            # Every start of a loader draws a number. From the global generator, that would make a resumed run differ.
            loader.generator = torch.Generator().manual_seed(self.config.env.seed)
        if checkpoint := checkpoint_to_resume(self.config):
            if self._feature_critic is not None:
                self._feature_critic.load_state_dict(torch.load(checkpoint / VALUE_HEADS, weights_only=True))
            if (checkpoint / RANDOM_STATES).exists():  # not in checkpoints of HiPER 0.1.0
                set_random_states(torch.load(checkpoint / RANDOM_STATES, weights_only=True))
        self.recorder.resumed_from(self.global_steps)
        trainer = self.config.trainer
        self._checkpoints = CheckpointWriter(
            Path(trainer.default_local_dir),
            self.settings.checkpoints,
            self.recorder,
            self._write_checkpoint,
            processes=trainer.n_gpus_per_node * trainer.nnodes,
            first_step=self.global_steps,
        )
        if not trainer.val_only and not self.recorder.lacks_evaluation(trainer.test_freq):
            with open_dict(trainer):
                trainer.val_before_train = False  # verl would evaluate at every start, for minutes

    @property
    def logger(self):
        """verl's Tracking. `fit` creates it; our recorder is one more backend of it."""
        return self._tracking

    @logger.setter
    def logger(self, tracking) -> None:
        tracking.logger["recorder"] = self.recorder
        tracking.logger["after_step"] = AfterStep(self._after_step)  # after the recorder: in this order they are called
        self._tracking = tracking

    def fit(self, agent_loop_manager) -> None:
        """verl's training loop.

        Raises:
            StopRequested: the run was asked to stop; the latest finished step is saved.
        """
        self._heartbeat = Heartbeat(agent_loop_manager.agent_loop_workers)
        self._order = SubmissionOrder(agent_loop_manager)
        self.recorder.can_stop()
        try:
            super().fit(self._order)
        except StopRequested:
            if self._checkpoints is not None and saves_checkpoints(self.config):
                self._checkpoints.save()
            raise

    def _require_no_stop_request(self) -> None:
        if is_stop_requested(self.recorder.folder):
            raise StopRequested("the run was asked to stop (SIGTERM)")

    # ------------------------------------------------------------------ rollout

    def _validate(self) -> dict[str, float]:
        """verl's evaluation. One at the end of a step that is asked to stop has no result: the next start repeats it.

        Raises:
            StopRequested: it is the evaluation before the first step, after which there is nothing new to save.
        """
        try:
            metrics: dict[str, float] = super()._validate()
            return metrics
        except StopRequested:
            if self._cursor is None:
                raise
            return {}

    def on_validate_begin(self) -> None:
        self.recorder.stage(f"evaluating on {len(self.val_dataset)} held-out tasks")

    def on_step_begin(self) -> None:
        self._refilled = 0
        self._cursor = self.train_dataloader.state_dict()  # before the tasks of this step are taken
        self.recorder.stage(f"step {self.global_steps}/{self.total_training_steps}")

    def _add_prompts_to_generate(self, num_prompts: int) -> int:
        """Play more tasks in place of those that the group filter took out (`algorithm.filter_groups`).

        Raises:
            NoSignalLeft: as many batches as are allowed were taken out in this step. verl itself would never stop.
        """
        self._refilled += num_prompts
        tasks, limit = self.config.data.train_batch_size, self.config.algorithm.filter_groups.max_num_gen_batches
        if self._refilled > tasks * limit:
            raise NoSignalLeft(
                f"step {self.global_steps}: after {limit} more batches of {tasks} tasks there are still fewer than "
                f"{tasks} tasks whose episodes end differently; the others are always won or always lost. "
                f"Try: algorithm.filter_groups.max_num_gen_batches={2 * limit} to look longer, "
                f"env.rollout.n={2 * self.config.env.rollout.n} for more episodes of each task, or "
                "algorithm.filter_groups.enable=False"
            )
        return super()._add_prompts_to_generate(num_prompts)

    def _on_episodes(self, batch: Batch, partition_id: str) -> None:
        """Called with every complete set of episodes, before verl touches it."""
        if partition_id == "val":
            turns = read_turns(batch)
            self._validation = validation_metrics(turns)
            self._record_episodes("val", turns, credit=None)

    def _record_episodes(self, split: str, turns: BatchTurns, credit: BatchCredit | None) -> None:
        self.recorder.write_episodes(split, self.global_steps, episode_records(self.global_steps, turns, credit))

    def _val_metrics_update(self, *args, **kwargs) -> dict[str, float]:
        return super()._val_metrics_update(*args, **kwargs) | self._validation

    # ------------------------------------------------------------------ values and advantages

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        """Rows are padded to a multiple of this. See `HiPERSettings.updates_per_step`."""
        if self.settings.updates_per_step is None:
            return super()._get_required_batch_multiple(dp_size)
        return dp_size * self.settings.updates_per_step * self.config.actor_rollout_ref.rollout.n

    def _compute_old_log_prob(self, batch: Batch, metrics: dict) -> Batch:
        if self._feature_critic is None:
            return super()._compute_old_log_prob(tensors_only(batch), metrics)
        batch = tensors_only(store(batch, value_low=self._reader.read(batch).value_low))
        batch.extra_info[value_features.FLAG] = True
        batch = super()._compute_old_log_prob(batch, metrics)
        batch.extra_info.pop(value_features.FLAG, None)
        values = self._feature_critic.values(*self._value_features(batch))
        return store(batch, old_values=values)

    def _value_features(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """What the values of turns are read from: hidden states of the policy, `[rows, 2, features]`, and the share of
        the step limit that is used up, `[rows]`."""
        elapsed = self._reader.read(batch).column("turn", torch.float32) / self.config.env.max_steps
        return stacked(fetch(batch, value_features.COLUMN)[value_features.COLUMN]), elapsed

    def _compute_ref_log_prob(self, batch: Batch, metrics: dict) -> Batch:
        return super()._compute_ref_log_prob(tensors_only(batch), metrics)

    def _compute_values(self, batch: Batch, metrics: dict) -> Batch:
        batch = tensors_only(batch)
        # With LoRA, verl selects the reference policy by this flag and leaves it set; it would apply to the critic too.
        batch.extra_info.pop("no_lora_adapter", None)
        if self._estimator.is_verls_own:
            return super()._compute_values(batch, metrics)
        batch.extra_info.update(
            {"compute_loss": False, "temperature": self.config.actor_rollout_ref.rollout.temperature}
        )
        ray.get(self.critic_wg.infer_batch(batch).futures)
        names = head_fields(self.settings.num_heads)
        data = fetch(batch, *names, "response_mask")
        values_RL = [
            response_from_nested(data[name], data["response_mask"]).to_padded_tensor(0.0).float() for name in names
        ]
        turns = self._reader.read(batch)
        return store(batch, old_values=read_slots(values_RL, turns.value_low), value_low=turns.value_low)

    def _compute_advantage(self, batch: Batch, metrics: dict) -> Batch:
        if self._estimator.is_verls_own:
            return self._compute_verls_advantage(batch, metrics)
        turns = self._reader.read(batch)
        has_values = self._estimator.has_turn_values
        fields = ["response_mask", *columns_to_read(self.config), *(["old_values"] if has_values else [])]
        # verl computes no entropy where it takes the log-probabilities over from vLLM
        has_entropy = not (self.config.algorithm.get("rollout_correction") or {}).get("bypass_mode")
        data = fetch(batch, *fields, *(["entropy"] if has_entropy else []))
        response_mask = data["response_mask"]
        log_probs = data["old_log_probs"].to_padded_tensor(0.0).float()
        values = stacked(data["old_values"]).float() if has_values else None
        is_response = response_mask.to_padded_tensor(0)
        signs = torch.Generator().manual_seed(derived_seed(self.config.env.seed, "signs", self.global_steps))
        credit = batch_credit(turns, values, log_probs, self.settings, is_response, signs)
        metrics.update(batch_metrics(turns))
        metrics.update(credit_metrics(turns, credit))
        if has_entropy:
            metrics.update(entropy_metrics(turns, data["entropy"].to_padded_tensor(0.0).float()))
        if self._feature_critic is not None:
            features, elapsed = self._value_features(batch)
            metrics.update(self._feature_critic.fit(features, elapsed, credit.value_targets, credit.value_mask))
        distance = policy_distance(data, credit.credit_mask, is_response * turns.is_turn.unsqueeze(1), self.config)
        metrics.update(distance.metrics)
        self._record_episodes("train", turns, credit)
        return store(
            batch,
            advantages=response_to_nested(credit.token_advantages, response_mask),
            **{name: response_to_nested(column, response_mask) for name, column in distance.columns.items()},
            value_targets=credit.value_targets,
            value_mask=credit.value_mask,
            # verl's own statistics want one value and one return per token; they are dropped again below.
            values=response_to_nested(torch.zeros_like(credit.token_advantages), response_mask),
            returns=response_to_nested(torch.zeros_like(credit.token_advantages), response_mask),
        )

    def _compute_verls_advantage(self, batch: Batch, metrics: dict) -> Batch:
        """verl's own estimator; only the penalties of single turns are added to the rewards before it."""
        turns = self._reader.read(batch)
        metrics.update(batch_metrics(turns))
        shaping = self.settings.estimator.shaping
        penalties = shaping.inadmissible_penalty * turns.inadmissible - (
            shaping.invalid_action_penalty_coef * turns.malformed
        )
        if penalties.any():
            scores = list(fetch(batch, "rm_scores")["rm_scores"].unbind())
            for row, (score, penalty) in enumerate(zip(scores, penalties.tolist(), strict=True)):
                if penalty:
                    scores[row] = score.clone()
                    scores[row][-1] += penalty
            batch = store(batch, rm_scores=torch.nested.as_nested_tensor(scores, layout=torch.jagged))
        self._record_episodes("train", turns, credit=None)
        return super()._compute_advantage(batch, metrics)

    # ------------------------------------------------------------------ updates

    def _update_critic(self, batch: Batch, metrics: dict) -> Batch:
        return self._in_equal_mini_batches(self.config.critic, super()._update_critic, batch, metrics)

    def _update_actor(self, batch: Batch, metrics: dict) -> Batch:
        if not self._estimator.is_verls_own:
            # The loss averages over `response_mask`, its normaliser counts `loss_mask`: both must be the credit mask.
            mask = fetch(batch, "credit_mask")["credit_mask"]
            batch = store(batch, response_mask=mask, loss_mask=mask.clone())
        return self._in_equal_mini_batches(self.config.actor_rollout_ref.actor, super()._update_actor, batch, metrics)

    def _in_equal_mini_batches(self, section: DictConfig, update, batch: Batch, metrics: dict) -> Batch:
        """Run verl's update with the mini-batch size that makes `updates_per_step` of them.

        verl multiplies the configured size by `rollout.n` and reads it in two places, so it is set in the
        configuration for the length of the call.
        """
        batch = tensors_only(batch)
        if self.settings.updates_per_step is None:
            return update(batch, metrics)
        before = section.ppo_mini_batch_size
        with open_dict(section):
            group = self.config.actor_rollout_ref.rollout.n
            section.ppo_mini_batch_size = len(batch) // (self.settings.updates_per_step * group)
        try:
            return update(batch, metrics)
        finally:
            section.ppo_mini_batch_size = before

    # ------------------------------------------------------------------ what is logged

    def _compute_metrics(self, batch: Batch, metrics, timing_raw, global_steps, epoch) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        if not self._estimator.is_verls_own:
            for name in [name for name in metrics if name.startswith(TOKEN_CRITIC_METRICS)]:
                metrics.pop(name)

    # ------------------------------------------------------------------ checkpoints

    def _save_checkpoint(self) -> None:
        """Called by verl when a step is due; it is saved when its evaluation and its metrics are on the disk.

        A run that is killed in between would resume after the step and never have its metrics.
        """
        self._save_is_due = True

    def _after_step(self, metrics: Mapping[str, Any], step: int) -> None:
        """Called when the metrics of a step, or of the evaluation before the first one, are on the disk."""
        if self.config.trainer.val_only or self._checkpoints is None:
            return
        self._cursor = None
        self._checkpoints.after_step(step, metrics.get("val/success_rate"), is_due=self._save_is_due)
        self._save_is_due = False
        if step < self.total_training_steps:
            self._require_no_stop_request()

    def _write_checkpoint(self, step: int) -> None:
        """Write the files of a step that is finished; the next one may have begun to play its episodes."""
        folder = checkpoint_path(Path(self.config.trainer.default_local_dir), step)
        folder.mkdir(parents=True)
        # verl's files come last: the last of them is its pointer to the checkpoint
        torch.save(random_states(), folder / RANDOM_STATES)
        if self._feature_critic is not None:
            torch.save(self._feature_critic.state_dict(), folder / VALUE_HEADS)
        asleep = bool(self.config.actor_rollout_ref.actor.fsdp_config.param_offload)
        if asleep:  # the weights return to the GPU to be saved, where vLLM's are
            self.checkpoint_manager.sleep_replicas()
        current = self.global_steps
        self.global_steps = step
        try:
            super()._save_checkpoint()
        finally:
            self.global_steps = current
        if self._cursor is not None:  # the tasks of the next step have been taken, and are played again
            torch.save(self._cursor, folder / "data.pt")
        if asleep:
            self.checkpoint_manager.update_weights(step)
