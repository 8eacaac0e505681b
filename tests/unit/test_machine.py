# SPDX-License-Identifier: Apache-2.0
"""What is checked of the machine before a run: each check with made-up facts, and all of them on this machine."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from made_checkpoints import make_checkpoint
from made_config import composed

from recipe.hiper.configuration.model_sizes import checkpoint_bytes
from recipe.hiper.preflight.disk import checkpoint_problems, checkpoints_to_write, cold_start_problems, file_problems
from recipe.hiper.preflight.folders import FolderState, read_folder, write_problems
from recipe.hiper.preflight.host import host_bytes, memory_problems, open_file_problems
from recipe.hiper.preflight.machine import machine_problems
from recipe.hiper.preflight.processor import driver_problems, driver_version, processor_problems
from recipe.hiper.preflight.sizes import SMOLLM2_SIZE, checkpoint_size, known_sizes
from recipe.hiper.preflight.temporary import clock_problems, temporary_problems

GB = 10**9
ROOMY = FolderState(Path("/data/run"), Path("/data"), True, "ann", "bob", True, 500 * GB, 1000 * GB, 10**6)
SIZES = {"actor": SMOLLM2_SIZE}
ACTOR = "actor_rollout_ref.actor.fsdp_config"


# Folders


def test_a_folder_that_does_not_exist_is_judged_by_its_nearest_parent(tmp_path):
    state = read_folder(tmp_path / "a" / "b")
    assert (state.path, state.nearest) == (tmp_path / "a" / "b", tmp_path)
    assert state.writable and state.owner == pwd.getpwuid(os.getuid()).pw_name
    assert 0 < state.free <= state.capacity and 0 <= state.used_share < 1


def test_a_file_or_a_dead_link_in_the_place_of_a_folder_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        state = read_folder(tmp_path / name / "below")
        assert not state.writable and state.nearest == tmp_path / name


def test_the_owner_of_a_folder_that_cannot_be_written_is_named():
    state = replace(ROOMY, writable=False)
    (line,) = write_problems(state, "the cache", "export X=y")
    reason = "because /data belongs to user ann, and this is bob"
    assert line == f"the cache: /data/run cannot be created, {reason}. Try: export X=y"
    assert not [*write_problems(ROOMY, "the cache", "")]
    (line,) = write_problems(replace(state, user="ann", nearest=state.path), "the cache", "export X=y")
    assert "/data/run cannot be written, because /data/run is read-only." in line
    (line,) = write_problems(replace(state, is_folder=False), "the cache", "export X=y")
    assert "because /data is not a folder." in line


# Memory and open files


def test_memory_is_a_problem_only_where_it_is_certainly_too_small():
    config = composed(model="smollm2")
    needed = host_bytes(config, SIZES)
    assert not [*memory_problems(config, SIZES, needed)]
    assert not [*memory_problems(config, SIZES, int(0.8 * needed))]  # the estimate may be that wrong
    (line,) = memory_problems(config, SIZES, int(0.7 * needed))
    assert f"{0.7 * needed / GB:.1f} GB of memory are free, but the run holds about {needed / GB:.1f} GB" in line
    assert line.endswith("actor_rollout_ref.model.lora_rank=32")
    assert not [*memory_problems(config, None, 0)]


def test_on_gpus_the_offloaded_parts_are_in_memory_by_hand():
    offload = (f"{ACTOR}.param_offload=true", f"{ACTOR}.optimizer_offload=true")
    config = composed(*offload, "trainer.n_gpus_per_node=4", profile="gpu")
    kept = composed(f"{ACTOR}.param_offload=false", f"{ACTOR}.optimizer_offload=false", profile="gpu")
    assert host_bytes(config, SIZES) - host_bytes(kept, SIZES) == 12 * SMOLLM2_SIZE.parameters
    two = composed(*offload, "trainer.n_gpus_per_node=4", "trainer.nnodes=2", profile="gpu")
    assert host_bytes(config, SIZES) - host_bytes(two, SIZES) == 6 * SMOLLM2_SIZE.parameters


@pytest.mark.parametrize("limit, problems", [(1024, 1), (4095, 1), (4096, 0), (1048576, 0), (-1, 0)])
def test_the_hard_limit_of_open_files_counts(limit, problems):
    lines = [*open_file_problems(limit)]
    assert len(lines) == problems and all(f"may open {limit} files" in line for line in lines)


# Disk


def checkpoints(*overrides, free: float, folder: Path) -> list[str]:
    config = composed(*overrides, f"trainer.default_local_dir={folder}")
    return [*checkpoint_problems(config, SIZES, replace(ROOMY, free=int(free)))]


@pytest.mark.parametrize(
    "steps, every, kept, number",
    [
        (24, 6, 2, 3),
        (24, 6, 1, 2),
        (24, 6, 3, 4),
        (24, 6, 9, 4),
        (24, 6, "null", 4),
        (25, 6, "null", 5),
        (24, -1, 2, 0),
    ],
)
def test_checkpoints_at_a_time_by_hand(steps, every, kept, number, tmp_path):
    config = composed(
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={every}",
        f"trainer.max_actor_ckpt_to_keep={kept}",
        f"trainer.default_local_dir={tmp_path}",
    )
    assert checkpoints_to_write(config) == number


def test_a_resumed_run_writes_those_of_its_remaining_steps(tmp_path):
    make_checkpoint(tmp_path, 18)
    config = composed(f"trainer.default_local_dir={tmp_path}", "trainer.max_actor_ckpt_to_keep=5")
    assert checkpoints_to_write(config) == 1
    config.trainer.resume_mode = "disable"
    assert checkpoints_to_write(config) == 4
    config.trainer.val_only = True
    assert checkpoints_to_write(config) == 0


def test_checkpoints_that_do_not_fit_are_reported(tmp_path):
    size = 12 * SMOLLM2_SIZE.parameters
    assert not checkpoints(free=3 * size, folder=tmp_path)
    (line,) = checkpoints(free=3 * size - 1, folder=tmp_path)
    assert line.startswith("3 checkpoints of about 1,614 MB") and "/data has 4,843 MB free" in line
    keep = "trainer.max_actor_ckpt_to_keep=3"
    (line,) = checkpoints(keep, free=2 * size, folder=tmp_path)
    assert line.endswith("or trainer.max_actor_ckpt_to_keep=1")


def test_files_need_permission_room_and_inodes():
    assert not [*file_problems(ROOMY, 1000, GB, "the cache", "x=y")]
    poor = replace(ROOMY, writable=False, free=GB - 1, free_files=999)
    lines = [*file_problems(poor, 1000, GB, "the cache", "x=y")]
    assert len(lines) == 3 and all(line.startswith("the cache: ") and line.endswith("Try: x=y") for line in lines)
    assert "takes 999 more files (df -i), and about 1,000 are needed" in lines[2]
    # Btrfs and some network file systems have no fixed number of inodes
    assert not [*file_problems(replace(ROOMY, free_files=None), 1000, GB, "the cache", "x=y")]


def test_the_fine_tuning_of_smollm2_is_counted_before_it_is_downloaded(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": GB})
    monkeypatch.setattr("recipe.hiper.configuration.model_sizes.shutil.disk_usage", lambda folder: usage)
    config = composed(model="smollm2")
    (line,) = cold_start_problems(config, tmp_path)
    assert line.startswith("warm_start.base=smollm2: the fine-tuning needs about 5,104 MB") and "HIPER_CACHE=" in line
    assert not [*cold_start_problems(composed(), tmp_path)]
    config.actor_rollout_ref.model.path = "/models/mine"
    assert not [*cold_start_problems(config, tmp_path)]


# Sizes of models


def test_sizes_are_known_of_smollm2_and_of_models_in_folders(tmp_path):
    assert known_sizes(composed()) is None
    assert known_sizes(composed("actor_rollout_ref.model.path=Qwen/Qwen2.5-1.5B-Instruct")) is None
    assert known_sizes(composed("critic.backbone=policy", model="smollm2")) == SIZES
    both = known_sizes(composed("critic.backbone=own", model="smollm2"))
    assert both == {"actor": SMOLLM2_SIZE, "critic": SMOLLM2_SIZE}


def test_sizes_of_a_folder_are_those_of_its_configuration(tmp_path):
    from transformers import Qwen2Config

    small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    Qwen2Config(**small, intermediate_size=64, vocab_size=100, architectures=["Qwen2ForCausalLM"]).save_pretrained(
        tmp_path
    )
    config = composed("critic.backbone=policy", f"actor_rollout_ref.model.path={tmp_path}")
    sizes = known_sizes(config)
    assert sizes is not None and sizes["actor"].largest == 100 * 32
    assert checkpoint_size(sizes) == checkpoint_bytes(config)


# Processor and driver


def test_the_processor_must_have_the_instructions_of_vllms_kernels():
    haswell = frozenset({"avx", "avx2", "f16c", "fma"})
    assert not [*processor_problems(haswell, "x86_64")]
    (line,) = processor_problems(frozenset({"avx"}), "x86_64")
    assert "does not have avx2, f16c" in line
    (line,) = processor_problems(haswell | {"avx512f", "avx512vl"}, "x86_64")
    assert "does not have avx512bw, avx512dq" in line
    assert not [*processor_problems(frozenset({"asimd"}), "aarch64")]
    assert not [*processor_problems(frozenset(), "x86_64")]


@pytest.mark.parametrize(
    "driver, cuda, works, problems",
    [
        ("580.65.06", "13.0", False, 0),
        ("575.57.08", "13.0", False, 1),
        ("575.57.08", "13.0", True, 0),
        ("525.60.13", "12.8", False, 0),
        ("525.60.11", "12.8", False, 1),
        ("470.256.02", "12.1", False, 1),
        (None, "13.0", False, 0),
        ("470.256.02", None, False, 0),
        ("470.256.02", "14.0", False, 0),
    ],
)
def test_the_driver_must_be_new_enough_for_cuda(driver, cuda, works, problems):
    lines = [*driver_problems(driver, cuda, lambda: works)]
    assert len(lines) == problems
    assert all(f"driver {driver} is too old for PyTorch's CUDA {cuda}" in line for line in lines)


def test_cuda_is_not_started_where_the_driver_is_new_enough():
    def works() -> bool:
        raise AssertionError("CUDA was started")

    assert not [*driver_problems("580.65.06", "13.0", works)]
    with pytest.raises(AssertionError, match="was started"):
        [*driver_problems("550.54.15", "13.0", works)]


def test_the_driver_version_is_read_from_the_kernel(tmp_path):
    file = tmp_path / "version"
    file.write_text("535.129.03\n")
    assert driver_version(file) == "535.129.03"


# Temporary files and the clock


def test_temporary_folders_must_be_writable():
    tmp = replace(ROOMY, path=Path("/tmp"), nearest=Path("/tmp"))
    closed = replace(tmp, writable=False)
    assert not [*temporary_problems(None, tmp)] and not [*temporary_problems(ROOMY, tmp)]
    (line,) = temporary_problems(replace(ROOMY, writable=False), tmp)
    assert line.startswith("TMPDIR: /data/run cannot be created") and line.endswith("Try: unset TMPDIR")
    (line,) = temporary_problems(ROOMY, closed)
    assert "chmod 1777 /tmp" in line
    assert len([*temporary_problems(closed, closed)]) == 1  # TMPDIR=/tmp is one problem


def test_a_clock_that_was_never_set_is_reported():
    (line,) = clock_problems(datetime(1970, 1, 1, 0, 5, tzinfo=UTC))
    assert line.startswith("the clock of this machine shows 1970-01-01 00:05 UTC")
    assert not [*clock_problems(datetime.now(UTC))]


# All of them


def test_all_problems_of_this_machine_are_reported_at_once(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 80)
    long.mkdir()
    (tmp_path / "file").write_text("")
    for name in ("RAY_ADDRESS", "RAY_local_fs_capacity_threshold"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "file" / "tmp"))
    monkeypatch.setenv("HIPER_CACHE", str(tmp_path / "file" / "cache"))
    lines = machine_problems(composed(f"run_dir={tmp_path}/file/run"))
    for part in ("Ray's temporary folder", "TMPDIR: ", "the cache (HIPER_CACHE): ", f"run_dir={tmp_path}/file/run: "):
        assert sum(line.startswith(part) for line in lines) == 1, part
    assert any(f"{long}/ray is too long" in line for line in lines)
    assert all("Try: " in line and "\n" not in line for line in lines)


def test_checks_create_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("HIPER_CACHE", str(tmp_path / "cache"))
    machine_problems(composed(f"run_dir={tmp_path}/run"))
    assert not [*tmp_path.iterdir()]
