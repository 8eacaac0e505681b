# SPDX-License-Identifier: Apache-2.0
"""One regression test for each defect of the released HiPER code that this part of the code answers for.

The numbers are those of the list in docs/algorithm.md. Defect 6 (dead keys) is tested in test_settings.py, defect 7
(generations for finished episodes) in test_lockstep.py and in tests/integration/test_training.py.
"""

from __future__ import annotations

import pytest
import torch
from made_turns import batch_turns, keep, made_settings, turn

from agent_system.plan_execute.memory import EpisodeMemory
from agent_system.plan_execute.prompts import PromptParts, fit_prompt
from agent_system.plan_execute.protocol import decide, parse_reply, token_spans
from recipe.hiper.estimators.hae import HAEConfig, hierarchical_advantages
from recipe.hiper.estimators.values import ValueSlot, explained_variance
from recipe.hiper.trainer.token_credit import batch_credit
from recipe.hiper.trainer.turn_batch import episode_grid

MONTE_CARLO = made_settings(HAEConfig(gamma=1.0, lam_turn=1.0, lam_seg=0.95))


def test_defect_1_rows_duplicated_to_fill_the_batch_stay_out_of_the_trajectories():
    """A duplicated terminal row doubled the return: 20 instead of 10."""
    last = keep(2, reward=10.0, terminated=True, stop="won", won=True, score=1.0)
    turns = batch_turns([("task_0", turn(0)), ("task_0", keep(1)), ("task_0", last), ("task_0", last)], padding=(3,))
    credit = batch_credit(turns, torch.zeros(4, 3), torch.zeros(4, 6), MONTE_CARLO)
    assert credit.turn_advantages.shaped.rewards.tolist() == [[0.0, 0.0, 10.0]]
    assert credit.turn_advantages.subgoal.tolist() == [[10.0, 0.0, 0.0]]
    assert credit.turn_advantages.action.tolist() == [[10.0, 10.0, 10.0]]
    for of_the_duplicate in (credit.token_advantages, credit.credit_mask, credit.value_targets, credit.value_mask):
        assert not of_the_duplicate[3].any()

    # A duplicate that is not marked is an error, not another turn.
    with pytest.raises(ValueError, match="is_padding"):
        episode_grid(torch.zeros(4), torch.tensor([0, 1, 2, 2]), torch.zeros(4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("pieces", "stored", "boundary", "blocks_in_loss"),
    [
        pytest.param(
            ["<switch>KEEP</switch>", "<subgoal>find mug</subgoal>"], "find mug", False, {0}, id="missing action block"
        ),
        pytest.param(
            # The first token replaces the switch block that the model left out.
            ["<subgoal>clean mug</subgoal>", "<action>look</action>"],
            *("find mug", False, {0, 1}),
            id="missing switch block",
        ),
        pytest.param(
            ["<switch>SWITCH</switch>", "<action>look</action>"], "find mug", False, {0, 1}, id="missing sub-goal block"
        ),
        pytest.param(
            ["<Switch>switch</SWITCH>", "<SUBGOAL>clean mug</subgoal>", "<Action>look</action>"],
            *("clean mug", True, {0, 1, 2}),
            id="letter case",
        ),
        pytest.param(
            ["<switch>CHANGE</switch>", "<subgoal>clean mug</subgoal>", "<action>look</action>"],
            *("find mug", False, {0, 2}),
            id="unknown switch word",
        ),
    ],
)
def test_defect_2_one_parser_decides_for_memory_masks_and_value_positions(pieces, stored, boundary, blocks_in_loss):
    """A missing action block wiped the stored sub-goal; a missing switch block stored the action as sub-goal."""
    memory = EpisodeMemory(history_length=2)
    opening = parse_reply("<switch>SWITCH</switch><subgoal>find mug</subgoal><action>look</action>")
    memory.record(decide(opening, 0, ""), "o", opening.action)

    reply = parse_reply("".join(pieces))
    decision = decide(reply, memory.turn, memory.subgoal)
    memory.record(decision, "o", reply.action)
    assert memory.subgoal == stored
    assert decision.boundary is boundary

    spans = token_spans(reply, pieces)
    made = keep(
        1,
        boundary=decision.boundary,
        spans=(spans.switch, spans.subgoal, spans.action),
        value_low=spans.value_low,
        terminated=True,
    )
    turns = batch_turns([("task_0", turn(0)), ("task_0", made)])
    values = torch.full((2, 3), -1.0)  # no target is -1, so no advantage is 0
    credit = batch_credit(turns, values, torch.zeros(2, max(6, len(pieces))), MONTE_CARLO)
    assert set(credit.credit_mask[1].nonzero().flatten().tolist()) == blocks_in_loss
    assert set(credit.token_advantages[1].nonzero().flatten().tolist()) == blocks_in_loss
    assert credit.value_mask[1].tolist() == [float(boundary), 1.0, 1.0]


def test_defect_3_keep_carries_the_subgoal_forward_whatever_was_typed():
    """KEEP stored the generated sub-goal, so that keeping was not keeping."""
    memory = EpisodeMemory(history_length=2)
    for switch, typed in (("SWITCH", "find mug"), ("KEEP", "find cup"), ("KEEP", ""), ("KEEP", "find pan")):
        reply = parse_reply(f"<switch>{switch}</switch><subgoal>{typed}</subgoal><action>look</action>")
        decision = decide(reply, memory.turn, memory.subgoal)
        memory.record(decision, "o", "look")
        assert memory.subgoal == decision.subgoal == "find mug"
        # The drift can still be charged.
        assert decision.boundary or not decision.copied_exactly


def test_defect_4_the_step_limit_is_not_a_loss_and_bootstraps_from_the_state_after_it():
    """Cut episodes looked like lost ones; where it did trigger, the planner took its own segment's start value."""
    rewards = torch.zeros(2, 3)
    values_high = torch.tensor([[7.0, 0.0, 0.0], [7.0, 0.0, 0.0]])
    zeros = torch.zeros(2, 3)
    terminated = torch.tensor([[0, 0, 0], [0, 0, 1]])
    result = hierarchical_advantages(
        rewards,
        zeros,
        values_high,
        zeros,
        zeros,
        torch.ones(2, 3),
        terminated,
        HAEConfig(0.5, 1.0, 0.95, bootstrap_truncated=True),
        bootstrap_low=torch.tensor([16.0, 16.0]),
        bootstrap_high=torch.tensor([8.0, 8.0]),
    )
    # Cut: gamma^3 of the value after the last turn (8), not of the segment's own start (7). Lost: nothing.
    assert result.target_high[:, 0].tolist() == [0.5 * 0.5 * 0.5 * 8, 0.0]
    assert result.adv_high[:, 0].tolist() == [0.5 * 0.5 * 0.5 * 8 - 7, -7.0]
    assert result.adv_low[:, 2].tolist() == [0.5 * 16, 0.0]
    assert result.adv_switch[:, 2].tolist() == [0.5 * 8, 0.0]


def test_defect_5_explained_variance_is_taken_on_each_heads_own_positions():
    """Positions without a target counted as targets of 0, which a head is not asked to meet."""
    rows = [
        record
        for name, won in (("a_0", 4.0), ("b_0", 6.0))
        for record in ((name, turn(0)), (name, keep(1, reward=won, terminated=True)))
    ]
    values = torch.tensor([[4.0, 5.0, 5.0], [5.0, 5.0, 5.0], [6.0, 5.0, 5.0], [5.0, 5.0, 5.0]])
    credit = batch_credit(batch_turns(rows), values, torch.zeros(4, 6), MONTE_CARLO)
    high = values[:, ValueSlot.HIGH], credit.value_targets[:, ValueSlot.HIGH]
    assert credit.value_targets[:, ValueSlot.HIGH].tolist() == [4.0, 0.0, 6.0, 0.0]
    assert explained_variance(*high, credit.value_mask[:, ValueSlot.HIGH]) == 1.0
    assert explained_variance(*high, torch.ones(4)) < 1.0
    assert (
        explained_variance(values[:, ValueSlot.LOW], credit.value_targets[:, ValueSlot.LOW], credit.value_mask[:, 1])
        == 0.0
    )


def test_defect_8_a_long_prompt_loses_history_and_observation_only():
    """WebShop prompts of 2,900 tokens met a budget of 2,048 with truncation=error: the run died."""
    page = " [SEP] ".join(f"'B0{i:08d}' 'a product with a rather long title {i}' '$10.0'" for i in range(60))
    actions = ("click[back to search]", "click[next >]", *(f"click[b0{i:08d}]" for i in range(60)))
    parts = PromptParts("find me a mug", ((page, "search[mug]"), (page, "click[next >]")), 2, page, "compare", actions)

    def count(text: str) -> int:
        return len(text) // 4 + 1

    budget = 2048
    assert count(page) > 800
    fitted = fit_prompt("plan_execute", parts, count, budget, environment="the WebShop online shop")
    assert fitted.tokens <= budget
    assert fitted.dropped_turns > 0
    for kept in ("find me a mug", "compare", "<switch>KEEP or SWITCH</switch>", *actions):
        assert kept in fitted.text
