# SPDX-License-Identifier: Apache-2.0
"""The typed configuration of a run. It has the shape of the configuration tree: `settings.algorithm.hae.lam_seg`.

Keys of verl's that fail late stand in `schema_verl`, the section `env` in `schema_environment`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from recipe.hiper.configuration.schema_environment import LARGEST_SEED, EnvironmentSettings
from recipe.hiper.configuration.schema_verl import (
    ActorKeys,
    DataKeys,
    FilterGroupsSettings,
    ModelKeys,
    RolloutKeys,
    TrainerKeys,
    UpdateKeys,
)
from recipe.hiper.configuration.section import Section, SharedSection
from recipe.hiper.estimators.hae import SwitchAdvantage
from recipe.hiper.estimators.registry import find_estimator
from recipe.hiper.estimators.shaping import KeepPenaltyMode, PenaltyCredit


class SmallModelSettings(Section):
    hidden: int | None = Field(ge=1)
    """hidden size; null: 128"""
    layers: int | None = Field(ge=1)
    """layers; null: 4"""
    heads: int | None = Field(ge=1)
    """attention heads; null: 4. `hidden / heads` must be a head size that vLLM supports"""
    intermediate: int | None = Field(ge=1)
    """size of the feed-forward layers; null: 384"""


class WarmStartSettings(Section):
    enable: bool
    """make a model from demonstrations, and use it where `actor_rollout_ref.model.path` is null"""
    base: str | None = Field(min_length=1)
    """pretrained model that is fine-tuned: `smollm2`, a folder, or a hub name; null: the small model is made from
    nothing, with a tokenizer of its own"""
    seed: int = Field(ge=0, le=LARGEST_SEED)
    """seed of the demonstrations and of their training"""
    episodes: int | None = Field(ge=1)
    """demonstrated episodes; null: the default of `recipe/hiper/cold_start`"""
    steps: int | None = Field(ge=1)
    """training steps on demonstrations; null: likewise"""
    lr: float | None = Field(gt=0)
    """peak learning rate of the training on demonstrations; null: likewise"""
    batch: int | None = Field(ge=1)
    """turns in a step of it; null: likewise"""
    lora_rank: int = Field(ge=0)
    """rank of the adapters with which a pretrained model is fine-tuned; they are merged afterwards. 0: all weights"""
    report_tasks: int = Field(ge=0)
    """held-out tasks that `python -m recipe.hiper.cold_start` plays with the finished model; 0: none"""
    model: SmallModelSettings
    """sizes of the small model"""


class GiGPOSettings(Section):
    step_weight: float = Field(ge=0)
    """weight of the comparison of turns beside that of episodes"""


class HAESettings(Section):
    lam_seg: float = Field(ge=0, le=1)
    """lambda of the planner's GAE, over segments"""
    lam_boundary: float = Field(ge=0, le=1)
    """lambda of executor and switch across the end of a segment; 0 (the paper): the planner's value counts there"""
    switch_advantage: SwitchAdvantage
    """advantage of the switch decision; `segment_return` (released code) or `termination` (the paper's text)"""
    norm_adv: bool
    """whiten the advantages, each of the three over the turns that have it"""
    regularize_copies: bool
    """KL and entropy terms apply to the tokens with which a KEEP turn repeats its sub-goal"""
    random_signs: bool
    """a control for experiments: the sign of every advantage is drawn at random, so the policy must not improve"""
    keep_penalty: float = Field(le=0)
    """added to the reward because of KEEP turns"""
    keep_penalty_mode: KeepPenaltyMode
    """how `keep_penalty` counts; `fixed`: on every KEEP turn; `normalized`: `keep_penalty / T` in an episode of T
    turns"""
    keep_consistency_penalty: float = Field(le=0)
    """added on a KEEP turn whose reply does not repeat the kept sub-goal"""
    keep_consistency_requires_both: bool
    """no such penalty where one of the two sub-goals is empty"""
    penalty_credit: PenaltyCredit
    """what the two penalties are charged to; `turn` (the reward of the turn) or `switch` (that decision alone)"""
    switch_cost: float = Field(ge=0)
    """price of a SWITCH, charged to that decision alone"""
    bootstrap_truncated: bool
    """value the state after an episode that the step limit cut, instead of counting it as 0"""


class AlgorithmSettings(SharedSection):
    adv_estimator: str
    """`hae`, or [another estimator](algorithm.md#the-rivals)"""
    gamma: float = Field(ge=0, le=1)
    """discount per turn"""
    lam: float = Field(ge=0, le=1)
    """lambda of hae's executor (within a segment), of turn_gae (over turns), of gae (over tokens)"""
    updates_per_step: int | None = Field(ge=1)
    """equal mini-batches of a step; null: mini-batches of `ppo_mini_batch_size` rows, whose number grows with the
    length of the episodes"""
    inadmissible_penalty: float = Field(le=0)
    """added to the reward of a turn whose action is not among the admissible ones"""
    norm_adv_by_std_in_grpo: bool
    """divide the advantages of grpo and gigpo by the standard deviation of their group"""
    filter_groups: FilterGroupsSettings
    """tasks that teach nothing"""
    gigpo: GiGPOSettings
    """GiGPO"""
    hae: HAESettings
    """hierarchical advantage estimation"""
    use_kl_in_reward: bool
    """verl's KL penalty in the reward; gae only"""
    use_pf_ppo: bool
    """verl's particle filter; not supported here"""

    @field_validator("adv_estimator")
    @classmethod
    def _is_known(cls, name: str) -> str:
        find_estimator(name)  # raises what to type
        return name


class ActorSettings(ActorKeys):
    use_invalid_action_penalty: bool
    """penalise replies that break the format"""
    invalid_action_penalty_coef: float = Field(ge=0)
    """subtracted from the reward of a turn whose reply breaks the format"""


class ActorRolloutSettings(SharedSection):
    actor: ActorSettings
    """policy"""
    rollout: RolloutKeys
    """vLLM"""
    model: ModelKeys
    """model"""


class CriticSettings(UpdateKeys):
    enable: bool | None
    """filled in: whether the estimator needs a critic"""
    backbone: Literal["own", "policy"]
    """`own`: a second model, updated as a whole. `policy`: value heads on the policy's hidden states, which cost nearly
    nothing; no gradient reaches the policy. Of the section `critic` only `optim.lr`, `optim.weight_decay`,
    `optim.clip_grad`, `ppo_epochs`, `ppo_mini_batch_size`, `replay_steps`, the heads and their weights are then read"""
    targets: Literal["lambda_return", "monte_carlo"]
    """what the values learn: `lambda_return`, the estimator's returns, which hold the values themselves;
    `monte_carlo`, what was paid until the end of the episode, discounted. The second is right from the first step on,
    for a run whose critic sees few episodes, and has more noise"""
    replay_steps: int = Field(ge=1)
    """`backbone=policy`: the heads are fitted on the turns of this many last steps. More than 1 helps where a step has
    few episodes"""
    use_three_heads_critic: bool | None
    """hae with three value heads (high, low, term: the released code); null: yes, unless two heads are set"""
    use_two_heads_critic: bool | None
    """hae with two value heads (high, low: the paper's text); null: no"""
    high_value_coef: float = Field(ge=0)
    """weight of the planner's value loss beside the executor's 1"""
    term_value_coef: float = Field(ge=0)
    """weight of the loss of the value before the switch decision"""
    cliprange_value: float = Field(gt=0)
    """a value may move by this much in one step"""
    model: ModelKeys
    """model of the critic; follows the policy's"""


class TrainerSettings(TrainerKeys):
    poll_interval: float = Field(gt=0)
    """seconds between two looks at the finished episodes (verl: 2)"""
    allow_padded_vocabulary: bool
    """accept a model whose vocabulary is longer than its tokenizer (Qwen2.5)"""
    episodes_every: int = Field(ge=0)
    """write the episodes of every n-th training step to `<run_dir>/episodes`; 0: none. Those of validation are always
    written"""


class RunSettings(SharedSection):
    model_name: Literal["tiny", "smollm2", "qwen2.5-1.5b"]
    """set by `model=`, which chooses prompts, precision, lengths, batches and learning rates that fit together"""
    run_dir: str = Field(min_length=1)
    """everything the run writes: `config.yaml`, `metrics.jsonl`, `curve.png`, `episodes/`, `tensorboard/`,
    `checkpoints/`, `logs/`, `failures.jsonl`"""
    warm_start: WarmStartSettings
    """the small model"""
    algorithm: AlgorithmSettings
    """estimator of the advantages"""
    actor_rollout_ref: ActorRolloutSettings
    """policy and rollout"""
    critic: CriticSettings
    """critic"""
    data: DataKeys
    """batches and lengths"""
    trainer: TrainerSettings
    """the run"""
    env: EnvironmentSettings
    """environment"""
    family: Section | None = None
    """the section of the environment's family (such as `env.webshop`), for which a class was passed"""
