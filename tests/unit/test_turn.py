# SPDX-License-Identifier: Apache-2.0
"""One turn of an episode, as training, evaluation and demonstrations play it."""

from __future__ import annotations

import pytest

from agent_system.plan_execute.prompts import PromptOverBudget, PromptStyle
from agent_system.plan_execute.protocol import Problem
from agent_system.plan_execute.turn import EpisodeAgent

SHOP = ["search[<your query>]", "click[wine  light blue]", "click[buy now]"]


def words(text: str) -> int:
    return len(text.split())


def agent(style: PromptStyle = PromptStyle.PLAN_EXECUTE_COMPACT, **more) -> EpisodeAgent:
    return EpisodeAgent(style, history_length=1, **more)


def reply(switch: str, subgoal: str, action: str) -> str:
    return f"<switch>{switch}</switch><subgoal>{subgoal}</subgoal><action>{action}</action>"


def test_an_episode_turn_by_turn():
    player = agent()
    player.observe("page 1", SHOP, "buy a mug")
    first = player.take(reply("SWITCH", "find mugs", "search[mug]"))
    assert (first.index, first.observation, first.action, first.admissible) == (0, "page 1", "search[mug]", True)
    assert first.opens_segment and (player.turn, player.subgoal) == (1, "find mugs")
    player.observe("page 2", SHOP, "buy a mug")
    assert player.prompt(words, 1000).text == player.whole_prompt()
    assert "history: page 1 > search[mug]" in player.whole_prompt() and "subgoal: find mugs" in player.whole_prompt()
    # The parser collapses the two spaces of the option; the environment gets its own text back.
    second = player.take(reply("KEEP", "something else", "click[Wine light blue]"))
    assert (second.action, second.admissible) == ("click[wine  light blue]", True)
    assert not second.opens_segment and not second.decision.copied_exactly and player.subgoal == "find mugs"
    player.observe("page 3", SHOP, "buy a mug")
    third = player.take("nonsense")
    assert (third.action, third.admissible, third.opens_segment) == ("", False, False)
    assert Problem.MISSING_ACTION in third.reply.problems and player.turn == 3


def test_a_flat_style_has_no_decision():
    for style, text in (
        (PromptStyle.FLAT, "<think>hm</think><action>click[buy now]</action>"),
        (PromptStyle.FLAT_NOTHINK, "<action>click[buy now]</action>"),
    ):
        player = agent(style)
        player.observe("page", SHOP, "buy")
        turn = player.take(text)
        assert turn.decision is None and turn.opens_segment and turn.reply.valid and player.subgoal == ""


def test_a_kept_sub_goal_may_be_left_out_where_the_style_says_so():
    short = "<switch>KEEP</switch><action>click[buy now]</action>"
    for style, valid in ((PromptStyle.PLAN_EXECUTE_COMPACT_SHORT, True), (PromptStyle.PLAN_EXECUTE_COMPACT, False)):
        player = agent(style)
        player.observe("page", SHOP, "buy")
        assert not player.take(short).reply.valid, "there is nothing to keep on the first turn"
        player.observe("page", SHOP, "buy")
        player.take(reply("SWITCH", "find mugs", "click[buy now]"))
        player.observe("page", SHOP, "buy")
        assert player.take(short).reply.valid is valid
        assert player.subgoal == "find mugs"


def test_a_demonstrator_may_do_something_else_than_it_says():
    player = agent(PromptStyle.FLAT_COMPACT, reply_style=PromptStyle.PLAN_EXECUTE_COMPACT)
    player.observe("page", SHOP, "buy")
    assert "subgoal" not in player.whole_prompt()
    turn = player.take(reply("SWITCH", "find mugs", "search[mug]"), action="click[Buy Now] ")
    assert (turn.action, turn.admissible, turn.reply.action) == ("click[Buy Now] ", True, "search[mug]")
    assert player.subgoal == "find mugs"
    player.observe("page", SHOP, "buy")
    assert "page > click[Buy Now]" in player.whole_prompt()


RED, CUP = "\u7ea2\u8272", "\u676f"


def test_copying_what_was_shown_is_no_defect_and_a_copied_sub_goal_can_be_kept():
    player = agent()
    player.observe(f"item: mug | choose color: {RED}", [f"click[{RED}]", "click[buy now]"], "buy a mug")
    assert player.take(reply("SWITCH", f"choose {RED}", f"click[{RED}]")).reply.valid
    player.observe("item: mug", ["click[buy now]"], "buy a mug")
    assert player.take(reply("KEEP", f"choose {RED}", "click[buy now]")).reply.valid
    player.observe("item: mug", ["click[buy now]"], f"buy a {CUP}")
    assert player.take(reply("SWITCH", f"find {CUP}", f"search[{CUP}]")).reply.valid
    player.observe("item: mug", ["click[buy now]"], "buy a mug")
    assert player.take(reply("KEEP", f"{RED}{CUP}", "click[buy now]")).reply.problems == (Problem.CJK_CHARACTER,)


def test_a_sub_goal_in_characters_that_nobody_showed_is_a_defect_on_every_turn():
    player = agent()
    for switch in ("SWITCH", "KEEP"):
        player.observe("page", SHOP, "buy a mug")
        turn = player.take(reply(switch, f"find {CUP}", "click[buy now]"))
        assert turn.reply.problems == (Problem.CJK_CHARACTER,)
    assert player.subgoal == f"find {CUP}"


def test_the_action_of_a_flat_style_may_be_copied_too():
    player = agent(PromptStyle.FLAT_COMPACT)
    player.observe("page", [f"click[{RED}]"], "buy a mug")
    assert player.take(f"<action>click[{RED}]</action>").reply.valid
    assert not agent_reads(player, f"<action>click[{CUP}]</action>")


def agent_reads(player: EpisodeAgent, text: str) -> bool:
    """Whether the reply is well formed on a page without CJK characters."""
    player.observe("page", SHOP, "buy a mug")
    return player.take(text).reply.valid


def test_observing_comes_first():
    player = agent()
    for act in (player.whole_prompt, lambda: player.prompt(words, 10), lambda: player.take("x")):
        with pytest.raises(RuntimeError, match="turn 0: `observe` comes before"):
            act()
    player.observe("page", SHOP, "buy")
    player.take("x")
    with pytest.raises(RuntimeError, match="turn 1"):
        player.take("x")


def test_a_budget_is_kept_or_refused():
    player = agent(PromptStyle.PLAN_EXECUTE, environment="a shop")
    player.observe("word " * 300, SHOP, "buy")
    fitted = player.prompt(words, 300)
    assert fitted.observation_cut and fitted.tokens <= 300 and "You act in a shop." in fitted.text
    with pytest.raises(PromptOverBudget):
        player.prompt(words, 20)
