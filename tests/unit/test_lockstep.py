# SPDX-License-Identifier: Apache-2.0
"""Episodes that run freely, and episodes that wait for each other after every turn."""

from __future__ import annotations

import asyncio

import pytest

from agent_system.rollout.lockstep import Lockstep


class Episode:
    """Plays `turns` turns as the agent loop does; the events of all episodes go into one list."""

    def __init__(self, name: str, turns: int, events: list[str], fails_on: int | None = None, seconds: float = 0.0):
        self.name, self.turns, self.events = name, turns, events
        self.fails_on, self.seconds = fails_on, seconds
        self.after_end: int | None = None

    async def generate(self) -> None:
        await asyncio.sleep(self.seconds)
        self.events.append(f"{self.name}+")

    async def play(self, lockstep: Lockstep, enabled: bool = True) -> None:
        async with lockstep.episode(enabled=enabled) as wave:
            for turn in range(self.turns):
                if turn == self.fails_on:
                    raise RuntimeError(f"{self.name} broke")
                await asyncio.sleep(self.seconds)
                self.events.append(f"{self.name}{turn}")
                if turn + 1 < self.turns:
                    await wave.turn_done()
            self.after_end = await wave.finish(self.generate)


def play(*episodes: Episode, enabled: bool = True) -> list:
    async def all_of_them():
        lockstep = Lockstep()
        return await asyncio.gather(*(e.play(lockstep, enabled) for e in episodes), return_exceptions=True)

    return asyncio.run(asyncio.wait_for(all_of_them(), timeout=20))


def made(*turns: int, **options) -> tuple[list[Episode], list[str]]:
    events: list[str] = []
    return [Episode(name, n, events, **options) for name, n in zip("abcdefgh", turns, strict=False)], events


def test_free_running_episodes_never_wait_and_cost_nothing_after_their_end():
    """A slow episode is still in its first turn when a fast one has ended."""
    events: list[str] = []
    fast, slow = Episode("f", 5, events), Episode("s", 2, events, seconds=0.05)
    assert play(fast, slow, enabled=False) == [None, None]
    assert events == ["f0", "f1", "f2", "f3", "f4", "s0", "s1"]
    assert fast.after_end == slow.after_end == 0


def test_in_lockstep_nobody_starts_a_turn_before_all_have_ended_the_last_one():
    events: list[str] = []
    fast, slow = Episode("f", 3, events), Episode("s", 3, events, seconds=0.01)
    play(fast, slow)
    assert [event[1] for event in events] == ["0", "0", "1", "1", "2", "2"]


@pytest.mark.parametrize("turns", [(3,), (3, 3), (1, 4), (2, 5, 5), (1, 2, 7), (6, 1, 1, 3)])
def test_in_lockstep_an_episode_goes_on_generating_until_the_slowest_one_has_ended(turns):
    """Defect 7 of the released code, kept as a mode to be measured against. The waste: what is left of the slowest."""
    episodes, events = made(*turns)
    assert play(*episodes) == [None] * len(turns)
    for episode, own in zip(episodes, turns, strict=True):
        extra = sum(event == f"{episode.name}+" for event in events)
        assert episode.after_end == extra
        assert max(turns) - own - 1 <= extra <= max(turns) - own


@pytest.mark.parametrize("fails_on", [0, 1, 2])
def test_an_episode_that_breaks_does_not_hold_up_the_others(fails_on):
    (broken, *others), events = made(3, 4, 2)
    broken.fails_on = fails_on
    results = play(broken, *others)
    assert str(results[0]) == "a broke" and results[1:] == [None, None]
    assert [event for event in events if event.startswith("b")][:4] == ["b0", "b1", "b2", "b3"]


def test_one_wave_after_the_other():
    """The next step's episodes find a clean barrier."""

    async def two_waves():
        lockstep = Lockstep()
        for _ in range(2):
            episodes, events = made(2, 4)
            await asyncio.gather(*(episode.play(lockstep) for episode in episodes))
            assert events.count("b3") == 1 and lockstep.all_finished
        return episodes[0].after_end

    assert asyncio.run(asyncio.wait_for(two_waves(), timeout=20)) in (1, 2)
