# SPDX-License-Identifier: Apache-2.0
"""HiPER's own configuration keys: where they are read, and the configuration that is left for verl.

Some keys of the released HiPER live inside sections that verl turns into dataclasses of its own
(`actor_rollout_ref.actor.use_invalid_action_penalty`, `critic.use_three_heads_critic`, ...). verl would refuse them, so
they are read here, once, and taken out of the configuration that verl sees.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.estimators.registry import OF_GROUPS, EstimatorConfig
from recipe.hiper.estimators.shaping import ShapingConfig

OWN_KEYS = (
    "actor_rollout_ref.actor.use_invalid_action_penalty",
    "actor_rollout_ref.actor.invalid_action_penalty_coef",
    "critic.use_three_heads_critic",
    "critic.use_two_heads_critic",
    "critic.high_value_coef",
    "critic.term_value_coef",
)
"""Keys inside sections that verl converts to dataclasses which do not know them."""


@dataclass(frozen=True)
class HiPERSettings:
    """What the trainer needs of HiPER's own keys.

    Attributes:
        estimator: `algorithm.adv_estimator` and its settings.
        regularize_copies: `algorithm.hae.regularize_copies`, see `credit.token_credit`.
        random_signs: `algorithm.hae.random_signs`: a control that must not learn.
        num_heads: value heads of the critic: three, two, one without hierarchy, none where there is no critic.
        value_coefficients: weights of the high, low and term value losses.
        updates_per_step: number of equal mini-batches a step's rows are cut into; None for mini-batches of
            `ppo_mini_batch_size` rows, whose number grows with the length of the episodes.
        poll_interval: seconds between two looks at the finished episodes.
    """

    estimator: EstimatorConfig
    regularize_copies: bool
    random_signs: bool
    num_heads: int
    value_coefficients: tuple[float, float, float]
    updates_per_step: int | None
    poll_interval: float

    @classmethod
    def from_config(cls, config: DictConfig) -> HiPERSettings:
        """Read the keys. Values out of range raise ValueError; `validation.check_config` reports them all together."""
        algorithm, critic = config.algorithm, config.critic
        return cls(
            estimator=EstimatorConfig(
                name=algorithm.adv_estimator,
                hae=hae_config(config),
                shaping=shaping_config(config),
                whiten=algorithm.hae.norm_adv,
                divide_by_std=algorithm.norm_adv_by_std_in_grpo,
                step_weight=algorithm.gigpo.step_weight,
            ),
            regularize_copies=algorithm.hae.regularize_copies,
            random_signs=algorithm.hae.random_signs,
            num_heads=number_of_heads(config),
            value_coefficients=(critic.high_value_coef, 1.0, critic.term_value_coef),
            updates_per_step=algorithm.updates_per_step,
            poll_interval=config.trainer.poll_interval,
        )


def hae_config(config: DictConfig) -> HAEConfig:
    """The estimator's settings."""
    algorithm = config.algorithm
    return HAEConfig(
        gamma=algorithm.gamma,
        lam_turn=algorithm.lam,
        lam_seg=algorithm.hae.lam_seg,
        switch_advantage=algorithm.hae.switch_advantage,
        bootstrap_truncated=algorithm.hae.bootstrap_truncated,
        lam_boundary=algorithm.hae.lam_boundary,
    )


def shaping_config(config: DictConfig) -> ShapingConfig:
    """The penalties. `use_invalid_action_penalty=False` is a coefficient of 0.

    What stands under `algorithm.hae` belongs to that estimator: the others are given the environment's rewards and the
    penalties for replies that cannot be read or carried out, and nothing about keeping and switching.
    """
    actor, hae = config.actor_rollout_ref.actor, config.algorithm.hae
    every = ShapingConfig(
        invalid_action_penalty_coef=actor.invalid_action_penalty_coef if actor.use_invalid_action_penalty else 0.0,
        inadmissible_penalty=config.algorithm.inadmissible_penalty,
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
    return of_hae if config.algorithm.adv_estimator == "hae" else every


def episodes_at_once(config: DictConfig) -> int:
    """Episodes that are played at the same time, in training or in validation."""
    held_out: int = config.env.val_tasks * config.actor_rollout_ref.rollout.val_kwargs.n
    training: int = config.data.train_batch_size * config.env.rollout.n
    return max(training, held_out)


def number_of_heads(config: DictConfig) -> int:
    """Value heads the configuration asks for: 3, 2, 1 for estimators without hierarchy, 0 for those of groups."""
    if config.algorithm.adv_estimator in OF_GROUPS:
        return 0
    if config.algorithm.adv_estimator != "hae":
        return 1
    three, two = config.critic.use_three_heads_critic, config.critic.use_two_heads_critic
    if two:
        return 2
    return 3 if three or three is None else 1


def verl_config(config: DictConfig) -> DictConfig:
    """A copy of the configuration as verl may see it: own keys taken out, what they imply filled in."""
    heads = number_of_heads(config)
    config = deepcopy(config)
    OmegaConf.resolve(config)
    with open_dict(config):
        for key in OWN_KEYS:
            section, name = key.rsplit(".", 1)
            OmegaConf.select(config, section).pop(name)
        config.critic.enable = heads > 0
        if heads == 0:
            config.trainer.critic_warmup = 0  # else these first steps would teach nobody
        config.critic.model.override_config.num_value_heads = heads
    return config
