# SPDX-License-Identifier: Apache-2.0
"""What a scripted player would do: the three blocks of a plan-execute reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent_system.plan_execute.prompts import PromptStyle
from agent_system.plan_execute.protocol import KEEP, SWITCH, SwitchWord


@dataclass(frozen=True)
class Advice:
    """A decision to keep or to switch, the sub-goal in force after it, and the action."""

    switch: SwitchWord
    subgoal: str
    action: str

    @classmethod
    def towards(cls, subgoal: str, action: str, current: str) -> Advice:
        """Keep `current` where it is the sub-goal already, else switch."""
        return cls(KEEP if subgoal == current else SWITCH, subgoal, action)

    @property
    def reply(self) -> str:
        """The advice in the words of the plan-execute protocol."""
        return f"<switch>{self.switch}</switch><subgoal>{self.subgoal}</subgoal><action>{self.action}</action>"

    def reply_in(self, style: PromptStyle) -> str:
        """The reply that a prompt of this style requires: three blocks, two, or the action block alone."""
        action = f"<action>{self.action}</action>"
        if not style.has_subgoal:
            return action
        return f"<switch>{KEEP}</switch>{action}" if style.has_short_keep and self.switch == KEEP else self.reply


class ScriptedPlayer(Protocol):
    """Plays one task and needs no model. Its advice may be requested in states that another policy has led to."""

    def advise(self, observation: str, admissible: Sequence[str], subgoal: str) -> Advice:
        """The recommended decision, sub-goal and action.

        Args:
            observation: the text of the state.
            admissible: the admissible actions.
            subgoal: the sub-goal in force, "" if there is none.
        """
