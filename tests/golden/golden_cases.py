# SPDX-License-Identifier: Apache-2.0
"""What is recorded: estimators with their settings, single replies, prompts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EstimatorCase:
    """An estimator on a batch of recorded episodes.

    Attributes:
        batch: name of the batch in `golden_files.EPISODES`.
        bootstrap: whether the batch has rows for the states after episodes that the step limit cut.
        overrides: Hydra overrides.
    """

    batch: str
    bootstrap: bool
    overrides: tuple[str, ...]


def _case(*overrides: str, batch: str = "three_blocks", profile: str = "cpu", preset: str = "custom") -> EstimatorCase:
    groups = [f"profile={profile}", "env=alfworld"]
    if preset != "custom":  # which is the default
        groups.append(f"algorithm/hae={preset}")
    return EstimatorCase(batch, _BOOTSTRAP in overrides, (*groups, *overrides))


_BOOTSTRAP = "algorithm.hae.bootstrap_truncated=true"
_TWO_HEADS = ("critic.use_two_heads_critic=true", "critic.use_three_heads_critic=false")
_PRESETS = ("custom", "released", "paper", "living")

ESTIMATORS = {
    **{f"hae {preset} {p}": _case(preset=preset, profile=p) for preset in _PRESETS for p in ("cpu", "gpu")},
    **{f"hae {preset} cpu bootstrap": _case(_BOOTSTRAP, preset=preset) for preset in _PRESETS},
    **{
        f"hae {preset} gpu norm_adv off": _case("algorithm.hae.norm_adv=false", preset=preset, profile="gpu")
        for preset in _PRESETS
    },
    **{
        f"hae {preset} short_keep": _case("env.short_keep=true", preset=preset, batch="short_keep")
        for preset in _PRESETS
    },
    "hae short_keep gpu bootstrap": _case("env.short_keep=true", _BOOTSTRAP, profile="gpu", batch="short_keep"),
    "hae two heads": _case(*_TWO_HEADS),
    "hae two heads bootstrap norm_adv off": _case(*_TWO_HEADS, _BOOTSTRAP, "algorithm.hae.norm_adv=false"),
    "hae one head": _case("critic.use_three_heads_critic=false"),
    "hae regularize_copies off": _case("algorithm.hae.regularize_copies=false"),
    "hae regularize_copies on": _case("algorithm.hae.regularize_copies=true", profile="gpu"),
    "hae lam_boundary 0.5": _case("algorithm.hae.lam_boundary=0.5", "algorithm.hae.norm_adv=false"),
    "hae lam_boundary 1 bootstrap": _case("algorithm.hae.lam_boundary=1", _BOOTSTRAP, profile="gpu"),
    "hae gamma lam lam_seg": _case("algorithm.gamma=0.9", "algorithm.lam=0.7", "algorithm.hae.lam_seg=0.4"),
    "hae termination with three heads": _case("algorithm.hae.switch_advantage=termination", _BOOTSTRAP),
    "hae penalties fixed, any copy": _case(
        "algorithm.hae.keep_penalty_mode=fixed",
        "algorithm.hae.keep_consistency_requires_both=false",
        "algorithm.hae.keep_consistency_penalty=-0.7",
        "algorithm.hae.norm_adv=false",
    ),
    "hae penalties to the switch": _case(
        "algorithm.hae.penalty_credit=switch", "algorithm.hae.switch_cost=0.2", "algorithm.hae.norm_adv=false"
    ),
    "hae no penalty for the format": _case("actor_rollout_ref.actor.use_invalid_action_penalty=false"),
    "turn_gae cpu": _case("algorithm.adv_estimator=turn_gae"),
    "turn_gae gpu": _case("algorithm.adv_estimator=turn_gae", "algorithm.lam=0.95", profile="gpu"),
    "turn_gae bootstrap": _case("algorithm.adv_estimator=turn_gae", _BOOTSTRAP),
    "turn_gae norm_adv off": _case("algorithm.adv_estimator=turn_gae", "algorithm.hae.norm_adv=false"),
    "turn_gae flat bootstrap": _case("algorithm.adv_estimator=turn_gae", _BOOTSTRAP, batch="flat"),
    "turn_gae short_keep": _case("algorithm.adv_estimator=turn_gae", "env.short_keep=true", batch="short_keep"),
    **{
        f"{name} {batch}": _case(f"algorithm.adv_estimator={name}", batch=batch)
        for name in ("grpo", "rloo", "gigpo")
        for batch in ("three_blocks", "flat")
    },
    **{f"{name} gpu": _case(f"algorithm.adv_estimator={name}", profile="gpu") for name in ("grpo", "rloo", "gigpo")},
    "grpo without std": _case("algorithm.adv_estimator=grpo", "algorithm.norm_adv_by_std_in_grpo=false"),
    "gigpo without std": _case("algorithm.adv_estimator=gigpo", "algorithm.norm_adv_by_std_in_grpo=false"),
    "gigpo step_weight 0.3": _case("algorithm.adv_estimator=gigpo", "algorithm.gigpo.step_weight=0.3", batch="flat"),
}
"""`gae` is verl's own and is not recorded. `random_signs` draws at random."""

BLOCKS = "<switch>{}</switch>\n<subgoal>{}</subgoal>\n<action>{}</action>"

REPLIES = (
    BLOCKS.format("SWITCH", "find mug", "go to desk 1"),
    BLOCKS.format("KEEP", "find mug", "go to desk 1"),
    BLOCKS.format("KEEP", "find  mug ", "go to desk 1"),
    BLOCKS.format("KEEP", "Find mug", "go to desk 1"),
    BLOCKS.format("KEEP", "clean mug", "go to desk 1"),
    BLOCKS.format("KEEP", "", "look"),
    BLOCKS.format("SWITCH", "", "look"),
    BLOCKS.format("SWITCH", " \n ", "look"),
    BLOCKS.format("switch", "clean mug", "LOOK"),
    BLOCKS.format("Keep", "find mug", "Go To  Desk 1"),
    BLOCKS.format("HOLD", "find mug", "look"),
    BLOCKS.format("SWITCH now", "clean mug", "look"),
    BLOCKS.format("", "find mug", "look"),
    BLOCKS.format("SWITCH", "find mug", ""),
    BLOCKS.format("\u017fWITCH", "find mug", "look"),
    "<SWITCH>KEEP</SWITCH><SubGoal>find mug</SubGoal><ACTION>look</ACTION>",
    "<switch>KEEP</switch><action>look</action>",
    "<switch>SWITCH</switch><action>look</action>",
    "<switch>HOLD</switch><action>look</action>",
    "<subgoal>find mug</subgoal><action>look</action>",
    "Well. <subgoal>find mug</subgoal><action>look</action>",
    "<switch>KEEP</switch><subgoal>find mug</subgoal>",
    "<switch>KEEP</switch><subgoal>find mug</subgoal><action>go to desk",
    "<switch>SWITCH</switch><subgoal>find mug",
    "<switch>KEEP<subgoal>find mug</subgoal><action>look</action>",
    "<action>look</action><switch>KEEP</switch><subgoal>find mug</subgoal>",
    "<switch>KEEP</switch><action>look</action><subgoal>find mug</subgoal>",
    "<switch>KEEP</switch><subgoal>find mug</subgoal><action>look</action><action>go to desk 1</action>",
    "<switch>KEEP</switch><switch>SWITCH</switch><subgoal>find mug</subgoal><action>look</action>",
    "<switch>KEEP</switch><subgoal>find <action>mug</action></subgoal><action>look</action>",
    "<switch><subgoal>KEEP</subgoal></switch><action>look</action>",
    "I keep it. <switch>KEEP</switch><subgoal>find mug</subgoal><action>look</action> That is all.",
    "<switch>KEEP</switch>, <subgoal>find mug</subgoal>; <action>look</action>",
    "<switch>KEEP</switch><subgoal>find 杯 mug</subgoal><action>look</action>",
    "<think>Where is it?</think><action>look</action>",
    "<think>Where is it?<action>look</action>",
    "<think></think><action>look</action>",
    "<action>look</action><think>Done.</think>",
    "<action>look</action>",
    " <action> look \n</action>\n",
    "<action>look</action><action>look</action>",
    "<action></action>",
    "look",
    "</action></switch>",
    "<switch><subgoal><action>",
    "<switch>SWITCH</switch><subgoal>caf\u00e9 \u2014 \U0001f600</subgoal><action>look</action>",
    "   ",
    "",
)
"""Each is read in all reply formats, on turn 0 and on a later turn, with and without a sub-goal in force."""

REPLY_FORMATS = ("three_blocks", "short_keep", "flat", "flat_nothink")
REPLY_STATES = ((0, ""), (3, "find mug"), (3, ""))
"""(turn, sub-goal in force)."""

PROMPT_TURNS = (0, 1, 2, 4)
HISTORY_LENGTHS = (0, 1, 2)
