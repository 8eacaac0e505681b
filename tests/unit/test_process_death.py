# SPDX-License-Identifier: Apache-2.0
"""Ray's errors of dead processes and machines, as a sentence that says which one and where."""

from __future__ import annotations

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError

from recipe.hiper.trainer.process_death import explain_death

NODE = "The actor is dead because its node has died. Node Id: 0123abcd\nthe actor's node was terminated unexpectedly"


def died(class_name: str, message: str, **fields) -> ActorDiedError:
    """As Ray makes it of what the control service knows."""
    context = ActorDiedErrorContext(
        class_name=class_name, actor_id=bytes(16), error_message=message, node_death_info=NodeDeathInfo(), **fields
    )
    return ActorDiedError(context)


def in_a_task(cause: Exception) -> RayTaskError:
    """As it reaches the driver from the trainer's process. Ray keeps only the text of what it cannot send."""
    return RayTaskError("run", f"ray::HiPERTaskRunner.run()\n  File ...\n{type(cause).__name__}: {cause}", cause)


@pytest.mark.parametrize("wrap", [lambda error: error, in_a_task])
def test_a_machine_that_is_gone_is_named(wrap):
    error = died("create_colocated_worker_cls.<locals>.WorkerDict", NODE, pid=4711, node_ip_address="10.0.0.5")
    text = str(explain_death(wrap(error)))
    assert text.startswith("a training process (create_colocated_worker_cls.<locals>.WorkerDict, process 4711 on 10.0")
    assert "its node has died. Node Id: 0123abcd" in text and "\n" not in text


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("CPUvLLMHttpServer", "a vLLM replica"),
        ("vLLMHttpServer", "a vLLM replica"),
        ("HiPERTaskRunner", "the trainer"),
        ("AgentLoopWorkerTQ", "a process that plays episodes"),
        ("SomethingElse", "a process"),
    ],
)
def test_the_role_of_a_process(name, role):
    text = str(explain_death(died(name, "Worker unexpectedly exits with a connection error code 2.", pid=1)))
    assert text.startswith(f"{role} ({name}, process 1) died: Worker unexpectedly exits")


def test_memory_that_ran_out():
    text = str(explain_death(in_a_task(OutOfMemoryError("Task was killed due to the node running low on memory."))))
    assert "memory of its machine ran out" in text


def test_another_error_is_none_of_ours():
    assert explain_death(ValueError("x")) is None
    assert explain_death(in_a_task(ValueError("x"))) is None
