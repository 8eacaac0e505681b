# SPDX-License-Identifier: Apache-2.0
"""Which tokens write which block."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_system.plan_execute.protocol import parse_flat, parse_reply, token_spans

SWITCH_BLOCK = "<switch>SWITCH</switch>"
SUBGOAL_BLOCK = "<subgoal>find a mug</subgoal>"
ACTION_BLOCK = "<action>go to shelf 1</action>"


def spans_of(*pieces: str):
    return token_spans(parse_reply("".join(pieces)), pieces)


def test_one_token_per_block():
    spans = spans_of(SWITCH_BLOCK, SUBGOAL_BLOCK, ACTION_BLOCK)
    assert (spans.switch, spans.subgoal, spans.action, spans.value_low) == ((0, 1), (1, 2), (2, 3), 2)


def test_whitespace_tokens_belong_to_no_block_and_the_executor_starts_there():
    spans = spans_of(SWITCH_BLOCK, "\n", SUBGOAL_BLOCK, "\n", ACTION_BLOCK)
    assert (spans.switch, spans.subgoal, spans.action, spans.value_low) == ((0, 1), (2, 3), (4, 5), 3)


def test_a_token_of_whitespace_and_a_beginning_belongs_to_the_block():
    spans = spans_of("<switch>", "SWITCH", "</switch>", "\n<", "subgoal>a</subgoal>", "\n<action", ">b</action>")
    assert (spans.switch, spans.subgoal, spans.action, spans.value_low) == ((0, 3), (3, 5), (5, 7), 5)


def test_a_token_over_two_blocks_belongs_to_the_earlier_one():
    spans = spans_of("<switch>SWITCH</switch", "><", "subgoal>a</subgoal", "><", "action>b</action>")
    assert (spans.switch, spans.subgoal, spans.action, spans.value_low) == ((0, 2), (2, 4), (4, 5), 4)


def test_the_end_of_sequence_token_belongs_to_the_action():
    spans = spans_of(SWITCH_BLOCK, SUBGOAL_BLOCK, ACTION_BLOCK, "", "")
    assert spans.action == (2, 5)


@pytest.mark.parametrize("stray", ["\n", " done"])
def test_what_follows_the_action_is_not_the_action(stray):
    spans = spans_of(SWITCH_BLOCK, SUBGOAL_BLOCK, ACTION_BLOCK, stray, "")
    assert spans.action == (2, 3)


def test_empty_pieces_inside_a_block_are_parts_of_its_characters():
    spans = spans_of(SWITCH_BLOCK, "<subgoal>", "", "", "é", "</subgoal>", "", ACTION_BLOCK)
    assert spans.subgoal == (1, 6)
    assert spans.value_low == 6
    assert spans.action == (7, 8)


def test_one_token_that_writes_everything_is_the_switch():
    spans = spans_of(SWITCH_BLOCK + SUBGOAL_BLOCK + ACTION_BLOCK, "")
    assert (spans.switch, spans.subgoal, spans.action, spans.value_low) == ((0, 1), (0, 0), (1, 2), 1)


def test_value_low_without_a_subgoal_block():
    assert spans_of(SWITCH_BLOCK, "\n", ACTION_BLOCK).value_low == 2
    assert spans_of(SWITCH_BLOCK, "\n").value_low == 1
    assert spans_of("no", " block").value_low == 1


def test_without_an_action_block_what_follows_the_other_blocks_stands_for_it():
    unclosed = spans_of(SWITCH_BLOCK, SUBGOAL_BLOCK, "<action>", "go", "")
    assert (unclosed.switch, unclosed.subgoal, unclosed.action, unclosed.value_low) == ((0, 1), (1, 2), (2, 5), 2)
    assert spans_of("no", " block", "").action == (1, 3)
    assert spans_of(SWITCH_BLOCK, SUBGOAL_BLOCK).action == (0, 0)


def test_without_a_switch_block_what_comes_first_stands_for_it():
    begun = spans_of("<subgoal>", "a mug", "</subgoal>", ACTION_BLOCK, "")
    assert (begun.switch, begun.subgoal, begun.action, begun.value_low) == ((0, 1), (1, 3), (3, 5), 3)
    talked = spans_of("Let", " me", SUBGOAL_BLOCK, ACTION_BLOCK, "")
    assert (talked.switch, talked.subgoal, talked.action) == ((0, 2), (2, 3), (3, 5))
    assert (spans_of("hm").switch, spans_of("hm").action) == ((0, 1), (0, 0))
    assert spans_of().switch == (0, 0)


def test_value_low_stays_inside_the_response():
    assert spans_of(SWITCH_BLOCK, SUBGOAL_BLOCK).value_low == 1
    assert spans_of().value_low == 0


def test_only_the_first_of_two_blocks_has_a_span():
    spans = spans_of(SWITCH_BLOCK, SUBGOAL_BLOCK, ACTION_BLOCK, "<action>look</action>", "")
    assert spans.action == (2, 3)


def test_wrong_order():
    spans = spans_of(ACTION_BLOCK, SUBGOAL_BLOCK, SWITCH_BLOCK, "")
    assert (spans.action, spans.subgoal, spans.switch, spans.value_low) == ((0, 1), (1, 2), (2, 3), 2)


def test_a_short_keep_has_no_subgoal_and_its_low_value_is_read_before_the_action():
    pieces = ["<switch>", "KEEP", "</switch>", ACTION_BLOCK, ""]
    spans = token_spans(parse_reply("".join(pieces), short_keep=True), pieces)
    assert (spans.switch, spans.subgoal, spans.action, spans.value_low) == ((0, 3), (0, 0), (3, 5), 3)


def test_flat_replies_have_an_action_only():
    pieces = ["<think>", "hm", "</think>", ACTION_BLOCK, ""]
    spans = token_spans(parse_flat("".join(pieces), require_think=True), pieces)
    assert (spans.switch, spans.subgoal, spans.action) == ((0, 0), (0, 0), (3, 5))


def test_pieces_of_another_text_are_refused():
    with pytest.raises(ValueError, match="3 characters but the parsed reply has 4"):
        token_spans(parse_reply("abcd"), ["ab", "c"])


FRAGMENTS = st.sampled_from(
    ["<switch>", "</switch>", "<subgoal>", "</subgoal>", "<action>", "</action>", "KEEP", "a mug", "\n", " x", "é", ""]
)


@st.composite
def texts_in_pieces(draw: st.DrawFn) -> list[str]:
    well_formed = SWITCH_BLOCK + draw(st.sampled_from(["", "\n", " \n"])) + SUBGOAL_BLOCK + "\n" + ACTION_BLOCK
    text = draw(st.one_of(st.just(well_formed), st.lists(FRAGMENTS, max_size=20).map("".join)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=15)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(texts_in_pieces())
def test_spans_follow_the_characters(pieces):
    """Against a character-by-character statement of the rules."""
    text = "".join(pieces)
    reply = parse_reply(text)
    spans = token_spans(reply, pieces)
    blocks = {"switch": reply.blocks.switch, "subgoal": reply.blocks.subgoal, "action": reply.blocks.action}

    owner_of_character = [None] * len(text)
    for name, block in blocks.items():
        if block is not None:
            owner_of_character[block.start : block.end] = [name] * (block.end - block.start)
    position = 0
    tokens_of = {name: set() for name in blocks}
    for index, piece in enumerate(pieces):
        owners = [owner for owner in owner_of_character[position : position + len(piece)] if owner]
        if owners:
            tokens_of[owners[0]].add(index)
        position += len(piece)

    if blocks["action"] is None:
        last_owned = max((index for owned in tokens_of.values() for index in owned), default=-1)
        tokens_of["action"] = set(range(last_owned + 1, len(pieces)))
    if blocks["switch"] is None and pieces:
        first_owned = min((index for owned in tokens_of.values() for index in owned), default=1)
        tokens_of = {name: owned - {0} for name, owned in tokens_of.items()}
        tokens_of["switch"] = set(range(max(1, first_owned)))

    covered = []
    for name in blocks:
        start, end = getattr(spans, name)
        inside = set(range(start, end))
        covered += inside
        assert tokens_of[name] <= inside
        assert all(pieces[index] == "" for index in inside - tokens_of[name])
    assert len(covered) == len(set(covered))

    assert 0 <= spans.value_low <= max(0, len(pieces) - 1)
    if blocks["subgoal"] is not None and spans.value_low < len(pieces) - 1:
        assert len("".join(pieces[: spans.value_low])) >= blocks["subgoal"].end
        assert len("".join(pieces[: spans.value_low - 1])) < blocks["subgoal"].end
