# SPDX-License-Identifier: Apache-2.0
"""The exceptions of this project: one root, so that a caller can tell our errors from a library's."""

from __future__ import annotations


class HiPERError(Exception):
    """Root of every error raised on purpose by this project.

    Attributes:
        exit_code: of a command that ends with it.
    """

    exit_code = 1


class ConfigError(HiPERError):
    """The configuration cannot be run. The message names key, value, reason and the override that fixes it."""


class TaskError(HiPERError):
    """A task (an ALFWorld game file, a shop goal) is missing, corrupt or not playable. The message names the file."""


class EnvironmentFault(HiPERError):
    """An environment engine broke in the middle of an episode. Playing the same task again is safe."""


class ProcessDied(HiPERError):
    """A process of a run, or its whole machine, is gone. The message says which one. A run can be resumed."""


class RolloutFault(HiPERError):
    """The rollout engine did not answer a request. Playing the same task again is safe."""
