# SPDX-License-Identifier: Apache-2.0
"""verl's CPU plugin: the platform, the check that it was loaded, and a weight sync that ends."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest
import ray
import torch
import zmq
from verl.plugin.platform import PlatformRegistry
from verl.workers.engine.base import EngineRegistry

import verl_plugins.cpu.engines
import verl_plugins.packed.engines
from verl_plugins.cpu.main_ppo import CPU_DEFAULTS
from verl_plugins.cpu.platform import PlatformCPU
from verl_plugins.cpu.plugin import require_plugin
from verl_plugins.cpu.replica import ROLLOUT_THREADS, rollout_threads
from verl_plugins.run_id import own_socket, run_id
from verl_plugins.weight_sync import SYNC_TIMEOUT_ENV, socket_timeout, sync_timeout_s


def in_new_process(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, timeout=300
    )


def test_the_platform_answers_as_verl_asks():
    platform = PlatformCPU()
    assert platform.device_name == "cpu"
    # An index such as 0 would mean cuda:0 to Tensor.to().
    assert platform.current_device() == platform.device_module.current_device() == torch.device("cpu")
    assert isinstance(platform.current_device(), torch.device)
    assert torch.ones(1).to(platform.current_device()).device.type == "cpu"
    assert platform.communication_backend_name() == "gloo"
    assert platform.device_count() == 1 and platform.is_available()
    assert platform.is_ipc_supported() is False, "the weights go through shared memory"
    assert platform.ray_resource_name() == "GPU", "Ray schedules by logical GPUs"
    platform.set_device(0)
    platform.synchronize()
    platform.empty_cache()
    with platform.nvtx_range("anything"):
        pass


def test_every_method_of_verls_interface_is_there():
    """A method that verl adds in a later version shows here, not in the middle of a run."""
    assert PlatformRegistry.get("cpu") is PlatformCPU
    assert not PlatformCPU.__abstractmethods__


def test_the_device_module_has_what_verl_calls_on_torch_cuda():
    module = PlatformCPU().device_module
    for name in ("empty_cache", "ipc_collect", "synchronize", "set_device", "reset_peak_memory_stats"):
        assert getattr(module, name)() is None
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
        assert getattr(module, name)() == 0
    free, total = module.mem_get_info()
    assert 0 < free <= total
    state = module.get_rng_state()
    first = torch.rand(3)
    module.set_rng_state(state)
    assert torch.equal(torch.rand(3), first)


@pytest.mark.parametrize(
    ("model_type", "engine"),
    [
        ("language_model", verl_plugins.cpu.engines.CPUFSDPEngineWithLMHead),
        ("value_model", verl_plugins.cpu.engines.CPUFSDPEngineWithValueHead),
    ],
)
def test_the_engines_are_registered_for_cpu(model_type, engine):
    assert EngineRegistry._engines[model_type]["fsdp2"]["cpu"] is engine


def test_on_nvidia_gpus_the_packed_engine_is_found_before_verls(monkeypatch):
    monkeypatch.setenv("VERL_ENGINE_DEVICE", "cuda")
    monkeypatch.setenv("VERL_ENGINE_VENDOR", "nvidia")
    found = EngineRegistry.get_engine_cls("language_model", "fsdp2")
    assert found is verl_plugins.packed.engines.PackedFSDPEngineWithLMHead


def test_defaults_are_overrides_that_name_each_key_once():
    names = [key.lstrip("+") for key in CPU_DEFAULTS]
    assert len(set(names)) == len(names)


LOADED_BY_VERL = """
import sys, verl
assert "verl_plugins.cpu.plugin" in sys.modules
from verl_plugins.cpu.plugin import require_plugin
require_plugin()
print("in place")
from verl.plugin.platform import PlatformRegistry, set_platform
set_platform(PlatformRegistry.get("nvidia")())
require_plugin()
"""


def test_verl_loads_the_plugin_by_its_entry_point_and_another_platform_is_not_overlooked():
    done = in_new_process(LOADED_BY_VERL, VERL_PLATFORM="cpu")
    assert "in place" in done.stdout, done.stderr[-2000:]
    assert done.returncode != 0
    assert "RuntimeError: verl runs on the platform 'cuda', not on cpu. Try: VERL_PLATFORM=cpu" in done.stderr


def test_a_plugin_that_verl_does_not_load_is_not_overlooked(monkeypatch):
    """verl itself only logs it at DEBUG level; the processes of Ray would run without it."""
    code = "import verl; from verl_plugins.cpu.plugin import require_plugin; require_plugin()"
    done = in_new_process(code, VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_PLUGINS="none")
    assert done.returncode != 0
    assert "RuntimeError: verl does not load the CPU plugin" in done.stderr, done.stderr[-2000:]
    assert "unset VERL_USE_EXTERNAL_PLUGINS (it is 'none')" in done.stderr

    require_plugin()
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "someone_elses, cpu")
    require_plugin()
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "someone_elses")
    with pytest.raises(RuntimeError, match="it is 'someone_elses'"):
        require_plugin()


# ---------------------------------------------------------------------------------------------------------------------
# The weight sync.


def test_a_sync_that_nobody_answers_ends_with_what_to_do():
    context = zmq.Context.instance()
    before = context.sockopts.get(zmq.RCVTIMEO, -1)
    with pytest.raises(TimeoutError) as ended, socket_timeout(0.05):
        socket = context.socket(zmq.REQ)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind("inproc://nobody-connects")
        socket.send(b"bucket")
    socket.close()
    message = str(ended.value)
    assert "did not take the new weights within 0 s" in message and f"{SYNC_TIMEOUT_ENV}=<seconds>" in message
    assert context.sockopts.get(zmq.RCVTIMEO, -1) == before, "other sockets of the process keep waiting as they like"


def test_sockets_outside_have_no_limit():
    context = zmq.Context.instance()
    with socket_timeout(7):
        inside = context.socket(zmq.PAIR)
        assert inside.getsockopt(zmq.RCVTIMEO) == inside.getsockopt(zmq.SNDTIMEO) == 7000
    outside = context.socket(zmq.PAIR)
    assert outside.getsockopt(zmq.RCVTIMEO) == outside.getsockopt(zmq.SNDTIMEO) == -1
    inside.close()
    outside.close()


def test_other_errors_pass_through():
    with pytest.raises(KeyError, match="mine"), socket_timeout(1):
        raise KeyError("mine")


def test_the_limit_is_an_environment_variable(monkeypatch):
    monkeypatch.delenv(SYNC_TIMEOUT_ENV, raising=False)
    assert sync_timeout_s() == 300.0
    monkeypatch.setenv(SYNC_TIMEOUT_ENV, "12.5")
    assert sync_timeout_s() == 12.5


def test_the_rollout_of_a_small_model_leaves_a_core_to_the_agents(monkeypatch):
    monkeypatch.delenv(ROLLOUT_THREADS, raising=False)
    small, smollm2 = 128, 576
    by_hand = ((1, small, 1), (2, small, 1), (16, small, 15), (1, smollm2, 1), (2, smollm2, 2), (16, smollm2, 16))
    for cores, hidden_size, threads in by_hand:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert rollout_threads(hidden_size) == threads
    monkeypatch.setenv(ROLLOUT_THREADS, "6")
    assert rollout_threads(small) == 6
    for wrong in ("0", "-1", "many", ""):
        monkeypatch.setenv(ROLLOUT_THREADS, wrong)
        with pytest.raises(ValueError, match=rf"{ROLLOUT_THREADS}=1"):
            rollout_threads(small)


def test_two_runs_of_a_machine_have_sockets_of_their_own(monkeypatch):
    """Both are job 01000000, each of its own cluster. Both ends of a run must agree on the name."""
    from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

    sent = "ipc:///tmp/rl-colocate-zmq-01000000-replica-0-rank-0.sock"  # as verl's rollout has it
    handles = []
    for address in ("10.0.0.1:6379", "10.0.0.1:51234"):
        context = types.SimpleNamespace(get_job_id=lambda: "01000000", gcs_address=address)
        monkeypatch.setattr(ray, "get_runtime_context", lambda context=context: context)
        monkeypatch.setenv("VERL_RAY_JOB_ID", run_id())
        handle = own_socket(sent)
        assert own_socket(handle) == handle
        engine = types.SimpleNamespace(model_runner=None, local_rank=0)
        assert vLLMColocateWorkerExtension._get_zmq_handle(engine) == handle
        handles.append(handle)
    assert handles[0] != handles[1]


IMPORTS_THE_CRITIC = """
from verl.workers.engine.base import EngineRegistry
import verl.workers.engine.fsdp.transformer_impl
before = {(kind, backend, device, str(vendor)) for kind, backends in EngineRegistry._engines.items()
          for backend, devices in backends.items() for device, vendor in devices.items()}
import recipe.hiper.trainer.critic, recipe.hiper.trainer.ppo_trainer
after = {(kind, backend, device, str(vendor)) for kind, backends in EngineRegistry._engines.items()
         for backend, devices in backends.items() for device, vendor in devices.items()}
print(sorted({(kind, device) for kind, _, device, _ in after - before}))
"""


def test_importing_the_trainer_registers_no_engine_but_its_own():
    """Engines for CPUs and for packed rows belong to runs that configure them."""
    printed = subprocess.run(
        [sys.executable, "-c", IMPORTS_THE_CRITIC], capture_output=True, text=True, check=True, timeout=300
    ).stdout
    assert printed.splitlines()[-1] == "[('multi_head_value_model', 'cuda')]"
