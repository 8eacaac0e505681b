# SPDX-License-Identifier: Apache-2.0
"""How replies are read and carried out, above all malformed ones."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_system.plan_execute.protocol import KEEP, SWITCH, Blocks, Problem, decide, parse_flat, parse_reply

GOOD = "<switch>SWITCH</switch>\n<subgoal>find a mug</subgoal>\n<action>go to shelf 1</action>"

TAG_NAMES = ("switch", "subgoal", "action", "think", "Switch", "ACTION")
FRAGMENTS = st.sampled_from(
    [
        *(f"<{slash}{name}>" for slash in ("", "/") for name in TAG_NAMES),
        "KEEP",
        "switch",
        "maybe",
        "find a mug",
        "go to shelf 1",
        " ",
        "\n",
        "<",
        ">",
        "</",
        "\u4e00",
        "é",
    ]
)
MESSY = st.lists(FRAGMENTS, max_size=25).map("".join)
WORDS = st.lists(st.text("abc<>é1", min_size=1, max_size=5), min_size=1, max_size=4).map(" ".join)


def test_a_well_formed_reply():
    reply = parse_reply(GOOD)
    assert (reply.switch, reply.subgoal, reply.action) == (SWITCH, "find a mug", "go to shelf 1")
    assert reply.valid and reply.problems == ()
    blocks = (reply.blocks.switch, reply.blocks.subgoal, reply.blocks.action)
    assert [GOOD[slice(*span)] for span in blocks] == GOOD.split("\n")
    assert reply.length == len(GOOD)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "<SWITCH>keep</Switch> <SubGoal> find\n  a  Mug </SUBGOAL><action>\tGo to Shelf 1 </action>\n",
            (KEEP, "find a Mug", "Go to Shelf 1", ()),
            id="letter case of tags and switch word, whitespace in values, text case kept",
        ),
        pytest.param(
            "<subgoal>a</subgoal><action>b</action>",
            (KEEP, "a", "b", (Problem.MISSING_SWITCH,)),
            id="missing switch",
        ),
        pytest.param(
            "<switch>SWITCH</switch><action>b</action>",
            (SWITCH, "", "b", (Problem.MISSING_SUBGOAL,)),
            id="missing sub-goal",
        ),
        pytest.param(
            "<switch>SWITCH</switch><subgoal>a</subgoal>",
            (SWITCH, "a", "", (Problem.MISSING_ACTION,)),
            id="missing action",
        ),
        pytest.param(
            "",
            (KEEP, "", "", (Problem.MISSING_SWITCH, Problem.MISSING_SUBGOAL, Problem.MISSING_ACTION)),
            id="empty reply",
        ),
        pytest.param(
            "<switch>SWITCH it</switch><subgoal>a</subgoal><action>b</action>",
            (KEEP, "a", "b", (Problem.UNKNOWN_SWITCH,)),
            id="unknown switch word",
        ),
        pytest.param(
            "<switch> </switch><subgoal>a</subgoal><action>b</action>",
            (KEEP, "a", "b", (Problem.UNKNOWN_SWITCH,)),
            id="empty switch word",
        ),
        pytest.param(
            "<switch>\u017fwitch</switch><subgoal>a</subgoal><action>b</action>",
            (KEEP, "a", "b", (Problem.UNKNOWN_SWITCH,)),
            id="long s is no s",
        ),
        pytest.param(
            "<switch>SWITCH</switch><subgoal> </subgoal><action>\n</action>",
            (SWITCH, "", "", (Problem.EMPTY_SUBGOAL, Problem.EMPTY_ACTION)),
            id="empty values",
        ),
        pytest.param(
            "<switch>SWITCH</switch><subgoal>find a",
            (
                SWITCH,
                "",
                "",
                (Problem.MISSING_SUBGOAL, Problem.MISSING_ACTION, Problem.UNCLOSED_BLOCK, Problem.TEXT_OUTSIDE),
            ),
            id="cut by the response limit",
        ),
        pytest.param(
            "<switch>SWITCH<subgoal>a</subgoal><action>b</action>",
            (KEEP, "a", "b", (Problem.MISSING_SWITCH, Problem.UNCLOSED_BLOCK, Problem.TEXT_OUTSIDE)),
            id="unclosed switch block",
        ),
        pytest.param(
            "<switch>KEEP</switch><subgoal>a</subgoal><action>b</action><action>c</action>",
            (KEEP, "a", "b", (Problem.DUPLICATE_BLOCK,)),
            id="two actions",
        ),
        pytest.param(
            "<action>b</action><switch>SWITCH</switch><subgoal>a</subgoal>",
            (SWITCH, "a", "b", (Problem.WRONG_ORDER,)),
            id="wrong order",
        ),
        pytest.param(
            "<switch>KEEP</switch><subgoal>a <action>b</action></subgoal><action>c</action>",
            (KEEP, "a b", "c", (Problem.NESTED_TAG,)),
            id="nested block opens nothing",
        ),
        pytest.param(
            "<think>hm</think><switch>KEEP</switch><subgoal>a</subgoal><action>b</action>",
            (KEEP, "a", "b", (Problem.TEXT_OUTSIDE,)),
            id="thoughts are text outside",
        ),
        pytest.param(
            "<switch>KEEP</switch>, <subgoal>a</subgoal><action>b</action>",
            (KEEP, "a", "b", (Problem.TEXT_OUTSIDE,)),
            id="comma between blocks",
        ),
        pytest.param(
            "<switch>KEEP</switch></action><subgoal>a</subgoal><action>b</action>",
            (KEEP, "a", "b", (Problem.TEXT_OUTSIDE,)),
            id="stray closing tag",
        ),
        pytest.param(
            "<switch>KEEP</switch><subgoal>\u676f</subgoal><action>b</action>",
            (KEEP, "\u676f", "b", (Problem.CJK_CHARACTER,)),
            id="CJK character",
        ),
    ],
)
def test_defects_of_a_reply(text, expected):
    reply = parse_reply(text)
    assert (reply.switch, reply.subgoal, reply.action, reply.problems) == expected
    assert reply.valid == (not reply.problems)


@pytest.mark.parametrize(
    ("text", "require_think", "action", "problems"),
    [
        ("<think>so <action>x</action> or</think><action>look</action>", True, "look", (Problem.NESTED_TAG,)),
        ("<think></think>\n<action>look</action>", True, "look", ()),
        ("<action>look</action>", True, "look", (Problem.MISSING_THINK,)),
        ("<action>look</action><think>x</think>", True, "look", (Problem.WRONG_ORDER,)),
        ("<action>look</action>", False, "look", ()),
        ("<think>hm</think><action>look</action>", False, "look", (Problem.TEXT_OUTSIDE,)),
        ("look", False, "", (Problem.MISSING_ACTION, Problem.TEXT_OUTSIDE)),
    ],
)
def test_flat_replies(text, require_think, action, problems):
    reply = parse_flat(text, require_think=require_think)
    assert (reply.action, reply.problems, reply.subgoal) == (action, problems, "")


def test_every_problem_can_occur():
    texts = [
        "",
        "<switch>x</switch><subgoal></subgoal><action></action><action>\u4e00</action>",
        "<action><subgoal>a<think></subgoal><switch>",
    ]
    seen = {problem for text in texts for problem in parse_reply(text).problems}
    seen |= set(parse_flat("", require_think=True).problems)
    seen |= set(parse_reply("<action>a</action><switch>KEEP</switch>").problems)
    assert seen == set(Problem)


RED, CUP = "\u7ea2\u8272", "\u676f"
PAGE = (f"click[{RED}{CUP}]", f"a cup in {RED}")


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        (f"<switch>SWITCH</switch><subgoal>find cup</subgoal><action>click[{RED}{CUP}]</action>", True),
        (f"<switch>SWITCH</switch><subgoal>find {RED} mug</subgoal><action>search[{RED} {CUP}]</action>", True),
        (f"<switch>SWITCH</switch><subgoal>find cup</subgoal><action>click[{CUP}{RED}]</action>", False),
        (f"<switch>SWITCH</switch><subgoal>find cup</subgoal><action>click[{RED}{RED}]</action>", False),
        (f"<switch>SWITCH</switch><subgoal>\u627e{RED}</subgoal><action>look</action>", False),
        (f"<switch>{RED}</switch><subgoal>find cup</subgoal><action>look</action>", False),
        (f"{RED}<switch>KEEP</switch><subgoal>find cup</subgoal><action>look</action>", False),
        (f"<switch>KEEP</switch><subgoal>a</subgoal><action>b</action><action>{RED}</action>", False),
        (f"<switch>KEEP</switch><subgoal>a</subgoal><action>{RED}", False),
    ],
)
def test_cjk_characters_may_be_copied_into_sub_goal_and_action_only(text, copied):
    assert (Problem.CJK_CHARACTER in parse_reply(text, shown=PAGE).problems) != copied
    assert Problem.CJK_CHARACTER in parse_reply(text).problems
    assert Problem.CJK_CHARACTER in parse_reply(text, shown=("a red cup",)).problems


def test_thoughts_are_no_copies():
    for text, copied in (
        (f"<think>hm</think><action>{RED}</action>", True),
        (f"<think>{RED}</think><action>a</action>", False),
    ):
        reply = parse_flat(text, require_think=True, shown=PAGE)
        assert reply.problems == (() if copied else (Problem.CJK_CHARACTER,))


@given(st.one_of(st.text(), MESSY), st.lists(st.text("\u4e00\u676f ab"), max_size=3))
def test_shown_texts_can_only_excuse_cjk_characters(text, shown):
    released, reply = parse_reply(text), parse_reply(text, shown=shown)
    assert set(released.problems) - {Problem.CJK_CHARACTER} == set(reply.problems) - {Problem.CJK_CHARACTER}
    assert set(reply.problems) <= set(released.problems)
    assert (reply.action, reply.subgoal, reply.blocks) == (released.action, released.subgoal, released.blocks)
    if not any("\u4e00" <= character <= "\u9fff" for character in "".join(shown)):
        assert reply == released


@given(st.one_of(st.text(), MESSY))
def test_any_text_is_read(text):
    for reply in (parse_reply(text), parse_flat(text, True), parse_flat(text, False)):
        assert reply.switch in (KEEP, SWITCH)
        spans = sorted(span for span in vars(reply.blocks).values() if span is not None)
        assert all(0 <= start < end <= len(text) for start, end in spans)
        assert all(before.end <= after.start for before, after in itertools.pairwise(spans))
        for value in (reply.subgoal, reply.action):
            assert value == " ".join(value.split())
            # A stored sub-goal goes into the next prompt, where a tag would be mistaken for the format's own.
            assert parse_reply(value).blocks == Blocks()


@given(st.sampled_from([KEEP, SWITCH]), WORDS, WORDS, st.sampled_from(["", "\n", "  \n"]))
def test_round_trip_of_well_formed_replies(switch, subgoal, action, gap):
    text = gap.join([f"<switch>{switch}</switch>", f"<subgoal>{subgoal}</subgoal>", f"<action>{action}</action>"])
    reply = parse_reply(text)
    assert (reply.switch, reply.subgoal, reply.action, reply.problems) == (switch, subgoal, action, ())


@given(MESSY)
def test_a_valid_reply_is_its_blocks_and_whitespace(text):
    reply = parse_reply(text)
    if reply.valid:
        switch, subgoal, action = reply.blocks.switch, reply.blocks.subgoal, reply.blocks.action
        assert not (text[: switch.start] + text[switch.end : subgoal.start]).strip()
        assert not (text[subgoal.end : action.start] + text[action.end :]).strip()
        assert reply.subgoal and reply.action


def test_many_tags_are_read_in_linear_time():
    # A scan for the closing tag from every opening tag would take 10^10 steps here.
    reply = parse_reply("<action>" * 100_000)
    assert reply.problems[0] is Problem.MISSING_SWITCH and Problem.UNCLOSED_BLOCK in reply.problems


def reply_of(switch: str, subgoal: str) -> str:
    return f"<switch>{switch}</switch><subgoal>{subgoal}</subgoal><action>look</action>"


@pytest.mark.parametrize(
    ("switch", "written", "turn", "kept", "boundary", "in_force", "copied", "comparable"),
    [
        pytest.param("SWITCH", "b", 3, "a", True, "b", False, True, id="switch"),
        pytest.param("SWITCH", "a", 3, "a", True, "a", False, True, id="switch to the same words opens a segment"),
        pytest.param("KEEP", "a", 3, "a", False, "a", True, True, id="keep, copied"),
        pytest.param("KEEP", "b", 3, "a", False, "a", False, True, id="keep carries on whatever was written"),
        pytest.param("KEEP", "", 3, "a", False, "a", False, False, id="keep without writing it"),
        pytest.param("KEEP", "b", 3, "", False, "", False, False, id="keep of nothing stays nothing"),
        pytest.param("SWITCH", "", 3, "a", False, "a", False, False, id="switch to nothing is a keep"),
        pytest.param("KEEP", "b", 0, "", True, "b", False, False, id="turn 0 opens whatever the reply says"),
        pytest.param("SWITCH", "", 0, "", True, "", False, False, id="turn 0 opens even without a sub-goal"),
    ],
)
def test_what_is_carried_out(switch, written, turn, kept, boundary, in_force, copied, comparable):
    decision = decide(parse_reply(reply_of(switch, written)), turn, kept)
    assert decision.boundary is boundary
    assert decision.switch == (SWITCH if boundary else KEEP)
    assert (decision.subgoal, decision.copied_exactly, decision.comparable) == (in_force, copied, comparable)


@given(MESSY, st.integers(0, 3), st.sampled_from(["", "find a mug"]))
def test_without_a_boundary_the_subgoal_never_changes(text, turn, kept):
    decision = decide(parse_reply(text), turn, kept)
    assert decision.boundary or decision.subgoal == kept
    assert decision.boundary or turn > 0


def test_a_negative_turn_is_refused():
    with pytest.raises(ValueError, match="turn counts from 0"):
        decide(parse_reply(GOOD), -1, "")


SHORT = "<switch>KEEP</switch><action>look</action>"


def test_a_short_keep_is_valid_where_it_is_allowed():
    assert parse_reply(SHORT).problems == (Problem.MISSING_SUBGOAL,)
    reply = parse_reply(SHORT, short_keep=True)
    assert reply.valid and reply.leaves_subgoal_out
    decision = decide(reply, 3, "find a mug")
    assert (decision.boundary, decision.subgoal, decision.copied_exactly) == (False, "find a mug", True)
    assert not decision.comparable


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<switch>SWITCH</switch><action>look</action>", Problem.MISSING_SUBGOAL),
        ("<switch>maybe</switch><action>look</action>", Problem.MISSING_SUBGOAL),
        ("<action>look</action>", Problem.MISSING_SUBGOAL),
        ("<switch>KEEP</switch><subgoal></subgoal><action>look</action>", Problem.EMPTY_SUBGOAL),
        ("<action>look</action><switch>KEEP</switch>", Problem.WRONG_ORDER),
    ],
)
def test_only_a_keep_without_a_block_may_be_short(text, problem):
    reply = parse_reply(text, short_keep=True)
    assert problem in reply.problems
    assert not decide(reply, 3, "find a mug").copied_exactly or problem is Problem.WRONG_ORDER


@given(MESSY)
def test_short_keep_forgives_one_problem_and_changes_nothing_else(text):
    strict, short = parse_reply(text), parse_reply(text, short_keep=True)
    assert set(strict.problems) - set(short.problems) <= {Problem.MISSING_SUBGOAL}
    assert set(short.problems) <= set(strict.problems)
    assert (strict.switch, strict.subgoal, strict.action, strict.blocks) == (
        short.switch,
        short.subgoal,
        short.action,
        short.blocks,
    )
    assert short.leaves_subgoal_out == (strict.problems != short.problems)


@given(st.booleans(), WORDS, WORDS)
def test_a_copied_keep_is_read_the_same_way_in_the_short_format(keep, subgoal, action):
    text = f"<switch>{KEEP if keep else SWITCH}</switch><subgoal>{subgoal}</subgoal><action>{action}</action>"
    assert parse_reply(text, short_keep=True) == parse_reply(text)
