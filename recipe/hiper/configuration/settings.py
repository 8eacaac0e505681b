# SPDX-License-Identifier: Apache-2.0
"""HiPER's own configuration keys: where they are read, and the configuration that is left for verl.

Some keys of the released HiPER live inside sections that verl turns into dataclasses of its own
(`actor_rollout_ref.actor.use_invalid_action_penalty`, `critic.use_three_heads_critic`, ...). verl would refuse them, so
they are read here, once, and taken out of the configuration that verl sees.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from agent_system.errors import ConfigError
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.configuration.section import require_section
from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.estimators.registry import Estimator, EstimatorConfig, UnknownEstimator, find_estimator
from recipe.hiper.estimators.shaping import ShapingConfig

OWN_KEYS = (
    "actor_rollout_ref.actor.use_invalid_action_penalty",
    "actor_rollout_ref.actor.invalid_action_penalty_coef",
    "critic.backbone",
    "critic.use_three_heads_critic",
    "critic.use_two_heads_critic",
    "critic.targets",
    "critic.replay_steps",
    "critic.high_value_coef",
    "critic.term_value_coef",
)
"""Keys inside sections that verl converts to dataclasses which do not know them."""

ONE_LOSS = (1.0, 1.0, 1.0)
"""Value coefficients of a critic with one head."""


@dataclass(frozen=True)
class FeatureCriticConfig:
    """Settings of `trainer.feature_critic`, all from the section `critic`.

    Attributes:
        num_heads: 1, 2 or 3.
        coefficients: weights of the high, low and term losses.
        lr, weight_decay, clip_grad: of AdamW (`critic.optim`).
        epochs: passes over the rows (`critic.ppo_epochs`).
        mini_batch: rows of an update (`critic.ppo_mini_batch_size`).
        replay_steps: steps whose turns the heads are fitted on (`critic.replay_steps`).
        seed: of the first weights and the order of the rows.
    """

    num_heads: int
    coefficients: tuple[float, float, float]
    lr: float
    weight_decay: float
    clip_grad: float
    epochs: int
    mini_batch: int
    replay_steps: int
    seed: int


@dataclass(frozen=True)
class CheckpointSettings:
    """Which checkpoints are written and kept.

    Attributes:
        keep: latest checkpoints that are kept (`trainer.max_actor_ckpt_to_keep`); None: all.
        save_best: whether the one with the highest success on held-out tasks is kept as well (`trainer.save_best`).
        stop_when_full: whether a full disk ends the run (`trainer.on_full_disk`).
    """

    keep: int | None
    save_best: bool
    stop_when_full: bool


@dataclass(frozen=True)
class HiPERSettings:
    """What the trainer needs of HiPER's own keys.

    Attributes:
        estimator: `algorithm.adv_estimator` and its settings.
        regularize_copies: `algorithm.hae.regularize_copies`, see `credit.token_credit`.
        random_signs: `algorithm.hae.random_signs`: a control that must not learn.
        num_heads: value heads of the critic: three, two, one without hierarchy, none where there is no critic.
        value_coefficients: weights of the high, low and term value losses; 1 for a critic with one head.
        updates_per_step: number of equal mini-batches a step's rows are cut into; None for mini-batches of
            `ppo_mini_batch_size` rows, whose number grows with the length of the episodes.
        poll_interval: seconds between two looks at the finished episodes.
        checkpoints: which checkpoints are written and kept.
        feature_critic: the critic on the policy's backbone; None: it has a backbone of its own, or there is none.
    """

    estimator: EstimatorConfig
    regularize_copies: bool
    random_signs: bool
    num_heads: int
    value_coefficients: tuple[float, float, float]
    updates_per_step: int | None
    poll_interval: float
    checkpoints: CheckpointSettings
    feature_critic: FeatureCriticConfig | None = None

    @classmethod
    def from_config(cls, config: DictConfig) -> HiPERSettings:
        """Read the keys of a configuration that was checked (`validation.read_settings`).

        Raises:
            ConfigError: a value does not fit its type or range after all.
        """
        values: Any = OmegaConf.to_container(config, resolve=True)
        return cls.from_settings(require_section(RunSettings, values, ""))

    @classmethod
    def from_settings(cls, settings: RunSettings) -> HiPERSettings:
        """What the trainer needs of a run's settings."""
        algorithm, critic = settings.algorithm, settings.critic
        # The weights belong to the three losses of a critic with several heads.
        heads = number_of_heads(settings)
        weights = (critic.high_value_coef, 1.0, critic.term_value_coef) if heads > 1 else ONE_LOSS
        return cls(
            estimator=EstimatorConfig(
                name=algorithm.adv_estimator,
                hae=hae_config(settings),
                shaping=shaping_config(settings),
                whiten=algorithm.hae.norm_adv,
                divide_by_std=algorithm.norm_adv_by_std_in_grpo,
                step_weight=algorithm.gigpo.step_weight,
                value_targets=critic.targets,
            ),
            regularize_copies=algorithm.hae.regularize_copies,
            random_signs=algorithm.hae.random_signs,
            num_heads=heads,
            value_coefficients=weights,
            updates_per_step=algorithm.updates_per_step,
            poll_interval=settings.trainer.poll_interval,
            checkpoints=CheckpointSettings(
                keep=settings.trainer.max_actor_ckpt_to_keep,
                save_best=settings.trainer.save_best,
                stop_when_full=settings.trainer.on_full_disk == "stop",
            ),
            feature_critic=FeatureCriticConfig(
                num_heads=heads,
                coefficients=weights,
                lr=critic.optim.lr,
                weight_decay=critic.optim.weight_decay,
                clip_grad=critic.optim.clip_grad,
                epochs=critic.ppo_epochs,
                mini_batch=critic.ppo_mini_batch_size,
                replay_steps=critic.replay_steps,
                seed=settings.env.seed,
            )
            if shares_backbone(settings)
            else None,
        )


def chosen_estimator(config: RunSettings | DictConfig) -> Estimator:
    """The entry of `algorithm.adv_estimator` in the table of estimators.

    Raises:
        ConfigError: there is none.
    """
    try:
        return find_estimator(config.algorithm.adv_estimator)
    except UnknownEstimator as error:
        raise ConfigError(str(error)) from None


def hae_config(settings: RunSettings) -> HAEConfig:
    """The estimator's settings."""
    algorithm = settings.algorithm
    return HAEConfig(
        gamma=algorithm.gamma,
        lam_turn=algorithm.lam,
        lam_seg=algorithm.hae.lam_seg,
        switch_advantage=algorithm.hae.switch_advantage,
        bootstrap_truncated=algorithm.hae.bootstrap_truncated,
        lam_boundary=algorithm.hae.lam_boundary,
    )


def shaping_config(settings: RunSettings) -> ShapingConfig:
    """The penalties. `use_invalid_action_penalty=false` is a coefficient of 0.

    The keys under `algorithm.hae` belong to that estimator: the others get the environment's rewards and the penalties
    for replies that cannot be parsed or executed, and nothing about keeping and switching.
    """
    algorithm, actor = settings.algorithm, settings.actor_rollout_ref.actor
    hae = algorithm.hae
    every = ShapingConfig(
        invalid_action_penalty_coef=actor.invalid_action_penalty_coef if actor.use_invalid_action_penalty else 0.0,
        inadmissible_penalty=algorithm.inadmissible_penalty,
    )
    of_hae = replace(
        every,
        keep_penalty=hae.keep_penalty,
        keep_penalty_mode=hae.keep_penalty_mode,
        keep_consistency_penalty=hae.keep_consistency_penalty,
        keep_consistency_requires_both=hae.keep_consistency_requires_both,
        penalty_credit=hae.penalty_credit,
        switch_cost=hae.switch_cost,
    )
    return of_hae if chosen_estimator(settings).is_hierarchical else every


def episodes_at_once(config: RunSettings | DictConfig) -> int:
    """Episodes that are played at the same time, in training or in validation."""
    held_out: int = config.env.val_tasks * config.actor_rollout_ref.rollout.val_kwargs.n
    training: int = config.data.train_batch_size * config.env.rollout.n
    return max(training, held_out)


def number_of_heads(config: RunSettings | DictConfig) -> int:
    """Value heads of the critic: the estimator's default, or the number that `use_{two,three}_heads_critic` choose.

    1 where both are false although the estimator needs more: `rules` refuses that.
    """
    estimator = chosen_estimator(config)
    three, two = config.critic.use_three_heads_critic, config.critic.use_two_heads_critic
    if not estimator.chooses_heads or (three is None and not two):
        return estimator.default_heads
    if two:
        return 2
    return 3 if three else 1


def shares_backbone(config: RunSettings | DictConfig) -> bool:
    """Whether the values are read from the policy's hidden states, so that there is no model for the critic."""
    return config.critic.backbone == "policy" and number_of_heads(config) > 0


def verl_config(config: DictConfig) -> DictConfig:
    """A copy of the configuration as verl may see it: own keys taken out, what they imply filled in."""
    heads, shared = number_of_heads(config), shares_backbone(config)
    config = deepcopy(config)
    OmegaConf.resolve(config)
    with open_dict(config):
        for key in OWN_KEYS:
            section, name = key.rsplit(".", 1)
            OmegaConf.select(config, section).pop(name)
        # The agent loop knows no estimators: this decides whether states after truncated episodes are valued.
        config.env.bootstrap_row = chosen_estimator(config).uses_bootstrap and config.algorithm.hae.bootstrap_truncated
        config.critic.enable = heads > 0 and not shared
        if heads == 0:
            config.trainer.critic_warmup = 0  # else nothing would be trained in these first steps
        config.critic.model.override_config.num_value_heads = heads
        # verl would delete the last complete checkpoint before it writes the next one
        config.trainer.max_actor_ckpt_to_keep = config.trainer.max_critic_ckpt_to_keep = None
    return config
