# SPDX-License-Identifier: Apache-2.0
"""Episodes that wait for each other after every turn, as in other rollouts: a baseline for measurements."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable


class FreeRunning:
    """An episode that does not wait for others: the default."""

    async def turn_done(self) -> None:
        """Called after every turn but the last."""

    async def finish(self, generate: Callable[[], Awaitable]) -> int:
        """Called after the last turn.

        Returns:
            Number of generations spent on this episode after its end.
        """
        return 0


class LockstepMember(FreeRunning):
    """An episode of a wave: after its own end it keeps generating until the slowest episode has ended."""

    def __init__(self, wave: Lockstep) -> None:
        self._wave = wave

    async def turn_done(self) -> None:
        await self._wave.arrive()

    async def finish(self, generate: Callable[[], Awaitable]) -> int:
        wasted = 0
        self._wave.mark_finished(self)
        while not self._wave.all_finished:
            await self._wave.arrive()
            if not self._wave.all_finished:
                await generate()
                wasted += 1
        return wasted


class Lockstep:
    """The episodes that are under way in this process, and the barrier between their turns."""

    def __init__(self) -> None:
        self._members: set[LockstepMember] = set()
        self._finished: set[LockstepMember] = set()
        self._arrived = 0
        self._gate = asyncio.Event()

    @property
    def all_finished(self) -> bool:
        """Whether every episode under way has ended."""
        return self._finished == self._members

    @contextlib.asynccontextmanager
    async def episode(self, enabled: bool) -> AsyncIterator[FreeRunning]:
        """Take part for the length of one episode; with `enabled=False` nothing ever waits."""
        if not enabled:
            yield FreeRunning()
            return
        member = LockstepMember(self)
        self._members.add(member)
        try:
            yield member
        finally:
            self._members.discard(member)
            self._finished.discard(member)
            self._open_if_complete()

    def mark_finished(self, member: LockstepMember) -> None:
        """One more episode has ended."""
        self._finished.add(member)
        self._open_if_complete()

    async def arrive(self) -> None:
        """Wait until every episode under way has arrived here, or has left."""
        self._arrived += 1
        gate = self._gate
        self._open_if_complete()
        await gate.wait()

    def _open_if_complete(self) -> None:
        if self._arrived >= len(self._members) or self.all_finished:
            gate, self._gate, self._arrived = self._gate, asyncio.Event(), 0
            gate.set()
