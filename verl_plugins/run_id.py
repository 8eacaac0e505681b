# SPDX-License-Identifier: Apache-2.0
"""A name for a run that no other run of the machine has."""

from __future__ import annotations

import ray


def run_id() -> str:
    """Ray's job and the port of its cluster.

    Ray counts jobs within a cluster, and every run that starts Ray is job 1 of its cluster. verl names
    the sockets of the weight sync after the job alone: two such runs could send each other their weights.
    """
    context = ray.get_runtime_context()
    return f"{context.get_job_id()}-{context.gcs_address.rpartition(':')[2]}"


def own_socket(handle: str) -> str:
    """verl's address of a weight-sync socket with `run_id` in place of the job; one that has it is unchanged."""
    job = ray.get_runtime_context().get_job_id()
    return handle.replace(f"-zmq-{job}-replica-", f"-zmq-{run_id()}-replica-")
