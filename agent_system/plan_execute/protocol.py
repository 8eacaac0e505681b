# SPDX-License-Identifier: Apache-2.0
"""The plan-execute protocol: the content of a reply, its effect, and the tokens that write each part.

A plan-execute reply is three blocks and nothing else, in this order:

    <switch>KEEP or SWITCH</switch>
    <subgoal>the sub-goal to follow now</subgoal>
    <action>one admissible action</action>

With `env.short_keep` the sub-goal block is left out after KEEP: what is kept need not be copied.

A flat reply is `<think>...</think><action>...</action>`, or the action block alone.

This file is the only parser of replies. The environment side (`parse_reply`, `decide`), the loss masks and the value
positions (`token_spans`) all stand on one `Reply`, so that they agree about malformed replies too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple

from agent_system.plan_execute.cjk import has_own_cjk

SwitchWord = Literal["KEEP", "SWITCH"]
KEEP: SwitchWord = "KEEP"
SWITCH: SwitchWord = "SWITCH"

TAGS = tuple(f"<{slash}{name}>" for name in ("switch", "subgoal", "think", "action") for slash in ("", "/"))

# re.ASCII: without it IGNORECASE lets the long s and the Kelvin sign stand for "s" and "k".
_TAG = re.compile(r"<(/?)(switch|subgoal|think|action)>", re.IGNORECASE | re.ASCII)
_SWITCH_WORD = re.compile(r"keep|switch", re.IGNORECASE | re.ASCII)


class Problem(str, Enum):
    """What is wrong with the format of a reply. A reply with any problem is charged the invalid-action penalty."""

    MISSING_SWITCH = "missing_switch"
    """There is no closed switch block; the reply is read as KEEP."""
    UNKNOWN_SWITCH = "unknown_switch"
    """The switch block holds something else than KEEP or SWITCH; the reply is read as KEEP."""
    MISSING_SUBGOAL = "missing_subgoal"
    """There is no closed sub-goal block where one is due; the written sub-goal is the empty text."""
    EMPTY_SUBGOAL = "empty_subgoal"
    """The sub-goal block holds nothing but whitespace."""
    MISSING_THINK = "missing_think"
    """There is no closed think block in a flat reply that needs one."""
    MISSING_ACTION = "missing_action"
    """There is no closed action block; the environment gets the empty text."""
    EMPTY_ACTION = "empty_action"
    """The action block holds nothing but whitespace."""
    UNCLOSED_BLOCK = "unclosed_block"
    """An opening tag has no closing tag after it; it opens no block and counts as text."""
    DUPLICATE_BLOCK = "duplicate_block"
    """A block occurs more than once; the first one counts."""
    WRONG_ORDER = "wrong_order"
    """The blocks are not in the order of the format."""
    NESTED_TAG = "nested_tag"
    """A tag is inside a block; it is left out of the block's value."""
    TEXT_OUTSIDE = "text_outside"
    """Text other than whitespace is outside the blocks of the format."""
    CJK_CHARACTER = "cjk_character"
    """A character from U+4E00 to U+9FFF occurs in the reply (a rule of the published format) and is not copied: see
    the argument `shown` of `parse_reply`."""


class CharSpan(NamedTuple):
    """Half-open range of characters of the parsed text."""

    start: int
    end: int


@dataclass(frozen=True)
class Blocks:
    """Position of the first block of each kind, tags included; `None` when there is none."""

    switch: CharSpan | None = None
    subgoal: CharSpan | None = None
    think: CharSpan | None = None
    action: CharSpan | None = None


@dataclass(frozen=True)
class Reply:
    """One parsed reply: what was written. Its effect is a `Decision`.

    Attributes:
        switch: "KEEP" or "SWITCH"; "KEEP" when missing or unknown. Always "SWITCH" for a flat reply (no meaning there).
        subgoal: the written sub-goal, stripped, inner whitespace collapsed; "" when missing, and for a flat reply.
        action: the written action, stripped, inner whitespace collapsed, letter case kept; "" when missing.
        problems: what is wrong with the format, each at most once, in the order of `Problem`.
        blocks: positions of the blocks in the parsed text.
        length: number of characters of the parsed text.
    """

    switch: SwitchWord
    subgoal: str
    action: str
    problems: tuple[Problem, ...]
    blocks: Blocks
    length: int

    @property
    def valid(self) -> bool:
        """Whether the reply keeps to the format in everything."""
        return not self.problems

    @property
    def leaves_subgoal_out(self) -> bool:
        """Whether this is a KEEP that rightly has no sub-goal block."""
        return self.switch == KEEP and self.blocks.subgoal is None and Problem.MISSING_SUBGOAL not in self.problems


def parse_reply(text: str, *, short_keep: bool = False, shown: Collection[str] = ()) -> Reply:
    """Parse a plan-execute reply. Never raises; see `Problem` for how each defect is read.

    Args:
        text: the reply.
        short_keep: whether the sub-goal block may be left out after KEEP. It may not while there is none to keep.
        shown: texts that the reply may copy from. A run of CJK characters in the sub-goal or the action is no problem
            if one of these texts contains it.
    """
    values, blocks, problems = _parse(text, ("switch", "subgoal", "action"), shown)
    word = values.get("switch")
    switch = KEEP
    if word is not None:
        if _SWITCH_WORD.fullmatch(word):
            switch = SWITCH if word.upper() == SWITCH else KEEP
        else:
            problems.add(Problem.UNKNOWN_SWITCH)
    if short_keep and word is not None and switch == KEEP and Problem.UNKNOWN_SWITCH not in problems:
        problems.discard(Problem.MISSING_SUBGOAL)
    return Reply(
        switch=switch,
        subgoal=values.get("subgoal", ""),
        action=values.get("action", ""),
        problems=_ordered(problems),
        blocks=blocks,
        length=len(text),
    )


def parse_flat(text: str, require_think: bool, *, shown: Collection[str] = ()) -> Reply:
    """Parse a reply of the flat baselines. Never raises.

    Args:
        text: the reply.
        require_think: True for `<think>..</think><action>..</action>`; False for the action block alone, where a think
            block is text outside the format.
        shown: texts that the action may copy from, see `parse_reply`.
    """
    values, blocks, problems = _parse(text, ("think", "action") if require_think else ("action",), shown)
    return Reply(
        switch=SWITCH,
        subgoal="",
        action=values.get("action", ""),
        problems=_ordered(problems),
        blocks=blocks,
        length=len(text),
    )


_MISSING = {
    "switch": Problem.MISSING_SWITCH,
    "subgoal": Problem.MISSING_SUBGOAL,
    "think": Problem.MISSING_THINK,
    "action": Problem.MISSING_ACTION,
}
_EMPTY = {"subgoal": Problem.EMPTY_SUBGOAL, "action": Problem.EMPTY_ACTION}


def _ordered(problems: set[Problem]) -> tuple[Problem, ...]:
    return tuple(problem for problem in Problem if problem in problems)


def _parse(text: str, names: tuple[str, ...], shown: Collection[str]) -> tuple[dict[str, str], Blocks, set[Problem]]:
    """The values and places of the first block of each name, and every problem but an unknown switch word."""
    closed_blocks, problems = _find_blocks(text, names)
    first: dict[str, tuple[CharSpan, str]] = {}
    for name, span, content in closed_blocks:
        if name in first:
            problems.add(Problem.DUPLICATE_BLOCK)
            continue
        without_tags, nested = _TAG.subn(" ", content)
        if nested:
            problems.add(Problem.NESTED_TAG)
        first[name] = (span, " ".join(without_tags.split()))

    for name in names:
        if name not in first:
            problems.add(_MISSING[name])
        elif name in _EMPTY and not first[name][1]:
            problems.add(_EMPTY[name])
    if list(first) != [name for name in names if name in first]:
        problems.add(Problem.WRONG_ORDER)
    if _has_text_outside(text, (span for _, span, _ in closed_blocks)):
        problems.add(Problem.TEXT_OUTSIDE)
    blocks = Blocks(**{name: span for name, (span, _) in first.items()})
    if has_own_cjk(text, [span for span in (blocks.subgoal, blocks.action) if span], shown):
        problems.add(Problem.CJK_CHARACTER)
    return {name: value for name, (_, value) in first.items()}, blocks, problems


def _find_blocks(text: str, names: tuple[str, ...]) -> tuple[list[tuple[str, CharSpan, str]], set[Problem]]:
    """All closed blocks from left to right, disjoint: (name, place with tags, content without its own tags).

    A block runs from its opening tag to the first closing tag of the same name; tags in between open nothing.
    """
    tags = list(_TAG.finditer(text))
    closing_after: list[int | None] = [None] * len(tags)
    nearest: dict[str, int] = {}
    for index in range(len(tags) - 1, -1, -1):
        slash, name = tags[index].group(1), tags[index].group(2).lower()
        if slash:
            nearest[name] = index
        else:
            closing_after[index] = nearest.get(name)

    closed_blocks: list[tuple[str, CharSpan, str]] = []
    problems: set[Problem] = set()
    index = 0
    while index < len(tags):
        opening, name = tags[index], tags[index].group(2).lower()
        closing_index = closing_after[index]
        if not opening.group(1) and name in names:
            if closing_index is None:
                problems.add(Problem.UNCLOSED_BLOCK)
            else:
                closing = tags[closing_index]
                span = CharSpan(opening.start(), closing.end())
                closed_blocks.append((name, span, text[opening.end() : closing.start()]))
                index = closing_index
        index += 1
    return closed_blocks, problems


def _has_text_outside(text: str, spans: Iterable[CharSpan]) -> bool:
    position = 0
    for span in spans:
        if text[position : span.start].strip():
            return True
        position = span.end
    return bool(text[position:].strip())


@dataclass(frozen=True)
class Decision:
    """The effect of a plan-execute reply under options semantics.

    Attributes:
        switch: "SWITCH" exactly where `boundary`. The word as written stays in `Reply.switch`.
        boundary: whether this turn opens a segment.
        subgoal: the sub-goal in force from this turn on.
        copied_exactly: on a KEEP turn, whether the reply repeats the kept sub-goal word for word, or rightly leaves it
            out. False on a boundary.
        comparable: whether both the kept and the written sub-goal hold text (`keep_consistency_requires_both`).
    """

    switch: SwitchWord
    boundary: bool
    subgoal: str
    copied_exactly: bool
    comparable: bool


def decide(reply: Reply, turn: int, kept_subgoal: str) -> Decision:
    """The effect of a plan-execute reply on the sub-goal in force before it.

    - Turn 0 opens a segment with the written sub-goal, regardless of the switch block.
    - SWITCH opens a segment with the written sub-goal. A SWITCH without one has nothing to switch to: it is a KEEP.
    - KEEP carries `kept_subgoal` forward regardless of the written one.

    Args:
        reply: from `parse_reply`.
        turn: index of the turn in its episode, from 0.
        kept_subgoal: sub-goal in force before this turn; "" when there is none.

    Raises:
        ValueError: `turn` is negative.
    """
    if turn < 0:
        raise ValueError(f"turn counts from 0, got {turn}")
    boundary = turn == 0 or (reply.switch == SWITCH and bool(reply.subgoal))
    return Decision(
        switch=SWITCH if boundary else KEEP,
        boundary=boundary,
        subgoal=reply.subgoal if boundary else kept_subgoal,
        copied_exactly=not boundary and (reply.leaves_subgoal_out or reply.subgoal == kept_subgoal),
        comparable=bool(reply.subgoal) and bool(kept_subgoal),
    )


@dataclass(frozen=True)
class TokenSpans:
    """Half-open ranges of response tokens that write each block, disjoint; (0, 0) when a block has no token.

    Attributes:
        switch, subgoal, action: the ranges, tags included; see `token_spans` for the substitute of a missing block.
        value_low: index of the first token after the sub-goal block; the executor's value is read before it is written.
    """

    switch: tuple[int, int]
    subgoal: tuple[int, int]
    action: tuple[int, int]
    value_low: int


def token_spans(reply: Reply, pieces: Sequence[str]) -> TokenSpans:
    """Find the tokens of each block of a reply, once, from the generated tokens.

    A token that overlaps two blocks belongs to the earlier one; a token that holds the whitespace before a block and
    the block's beginning belongs to that block. Empty pieces that end the reply directly after the action block (the
    end-of-sequence token) belong to it: stopping is the executor's decision.

    The penalty for a malformed reply reaches only tokens with a gradient, so a missing block has a substitute. For
    the action: all tokens after the other blocks. For the switch block: the tokens before the first block, and at least
    the first token of the reply, with which the model started something else; its block loses that token.

    Without a sub-goal block, `value_low` is the first token of the action range. It is always an index into `pieces` (0
    when there are none).

    Args:
        reply: from `parse_reply` or `parse_flat`.
        pieces: decoded text of each generated token, in order. Their concatenation is the text that was parsed; a token
            that adds no text (end of sequence, part of a character) has an empty piece.

    Raises:
        ValueError: the pieces do not have as many characters as the parsed text.
    """
    starts: list[int] = []
    position = 0
    for piece in pieces:
        starts.append(position)
        position += len(piece)
    if position != reply.length:
        raise ValueError(
            f"the token pieces hold {position} characters but the parsed reply has {reply.length}: "
            "token_spans needs the pieces of the very text that was parsed"
        )

    blocks = {"switch": reply.blocks.switch, "subgoal": reply.blocks.subgoal, "action": reply.blocks.action}
    ranges = dict.fromkeys(blocks, (0, 0))
    taken = 0
    for name, block in sorted(((n, b) for n, b in blocks.items() if b is not None), key=lambda item: item[1]):
        inside = [
            index
            for index in range(taken, len(pieces))
            if pieces[index] and starts[index] < block.end and starts[index] + len(pieces[index]) > block.start
        ]
        if inside:
            taken = inside[-1] + 1
            ranges[name] = (inside[0], taken)

    action = reply.blocks.action
    if action is not None and action.end == reply.length and taken < len(pieces):
        # Only empty pieces are left. The action may have no token of its own when one token wrote several blocks.
        start, end = ranges["action"]
        ranges["action"] = (start if end > start else taken, len(pieces))
    elif action is None and taken < len(pieces):
        ranges["action"] = (taken, len(pieces))

    if Problem.MISSING_SWITCH in reply.problems and pieces:
        end = max(1, min((start for start, stop in ranges.values() if stop > start), default=1))
        ranges = {name: (max(start, end), stop) if stop > end else (0, 0) for name, (start, stop) in ranges.items()}
        ranges["switch"] = (0, end)

    if reply.blocks.subgoal is not None:
        value_low = sum(begin < reply.blocks.subgoal.end for begin in starts)
    else:
        value_low = ranges["action"][0]
    return TokenSpans(
        switch=ranges["switch"],
        subgoal=ranges["subgoal"],
        action=ranges["action"],
        value_low=max(0, min(value_low, len(pieces) - 1)),
    )
