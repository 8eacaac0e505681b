# SPDX-License-Identifier: Apache-2.0
"""What follows from the size of a model: checkpoints, the bucket of the weight sync, the memory of a GPU, the disk."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from made_config import composed
from omegaconf import OmegaConf
from transformers import Qwen2Config, Qwen2ForCausalLM

from agent_system.errors import ConfigError
from recipe.hiper.configuration.gpu_memory import Resident, fill_in_share, fits, fitting_share
from recipe.hiper.configuration.model_sizes import (
    BUCKET,
    ModelSize,
    checkpoint_bytes,
    fill_in_bucket,
    require_disk,
    require_disk_for_cold_start,
    require_disk_for_download,
    trained_sizes,
)

GROUPS = ("algorithm.adv_estimator=grpo", "env.rollout.n=8")
"""No critic."""

SIZES = dict(vocab_size=11, hidden_size=4, intermediate_size=6, num_attention_heads=1, num_key_value_heads=1)
PARAMETERS = 11 * 4 + 4 * (4 * 4) + 3 * 4 + 3 * 4 * 6 + 3 * 4
"""Embedding, attention with its biases, feed-forward, norms. The tied output layer is stored once."""

LINEAR = 4 * (4 + 4) + 2 * (4 + 6) + (6 + 4)
"""Inputs and outputs of the seven linear layers: an adapter of rank r has r parameters for each of them."""


@pytest.fixture
def model(tmp_path) -> str:
    config = Qwen2Config(**SIZES, num_hidden_layers=1, tie_word_embeddings=True)
    config.save_pretrained(tmp_path)
    assert sum(parameter.numel() for parameter in Qwen2ForCausalLM(config).parameters()) == PARAMETERS
    return f"actor_rollout_ref.model.path={tmp_path}"


def test_a_checkpoint_holds_weights_and_two_moments(model):
    """Policy and critic, each in float32."""
    assert checkpoint_bytes(composed(model)) == PARAMETERS * 4 * 3 * 2
    assert checkpoint_bytes(composed(model, *GROUPS)) == PARAMETERS * 4 * 3


def test_only_trained_parameters_have_moments(model):
    policy = (model, "actor_rollout_ref.model.lora_rank=2")
    adapters = 2 * LINEAR
    assert checkpoint_bytes(composed(*policy, *GROUPS)) == 4 * (PARAMETERS + adapters) + 8 * adapters
    critic = 2 * LINEAR + 3 * 4  # and the three value heads
    both = checkpoint_bytes(composed(*policy, "critic.model.lora_rank=2"))
    assert both == 4 * (2 * PARAMETERS + adapters + critic) + 8 * (adapters + critic)


def test_adapters_of_some_layers(model):
    overrides = ("actor_rollout_ref.model.lora_rank=2", "actor_rollout_ref.model.target_modules=[q_proj,v_proj]")
    assert trained_sizes(composed(model, *overrides, *GROUPS))["actor"].trained == 2 * 2 * (4 + 4)
    excluded = (*overrides, "actor_rollout_ref.model.exclude_modules=[v_proj]")
    assert trained_sizes(composed(model, *excluded, *GROUPS))["actor"].trained == 2 * (4 + 4)


# ---------------------------------------------------------------------------------------------------------------------
# The bucket. Sizes of Qwen2.5-1.5B's and SmolLM2-135M's embeddings.

QWEN = ModelSize(1_540_000_000, 1_540_000_000, 151_936 * 1536)
SMOLLM2 = ModelSize(134_515_008, 134_515_008, 49_152 * 576)


@pytest.mark.parametrize(("size", "megabytes"), [(QWEN, 896), (SMOLLM2, 128), (ModelSize(10**6, 10**6, 10**5), 64)])
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_bucket_has_room_for_the_largest_tensor(size, megabytes, profile):
    config = composed(profile=profile)
    assert OmegaConf.select(config, BUCKET) is None
    fill_in_bucket(config, size)
    assert OmegaConf.select(config, BUCKET) == megabytes
    assert size.largest * 4 <= megabytes << 20


def test_a_bucket_that_is_too_small_is_refused():
    config = composed(f"{BUCKET}=64")
    with pytest.raises(ConfigError, match=r"=64 is less than the largest tensor .*108 MiB.*=null \(computed: 128\)"):
        fill_in_bucket(config, SMOLLM2)
    fits_exactly = composed(f"{BUCKET}=108")
    fill_in_bucket(fits_exactly, SMOLLM2)
    assert OmegaConf.select(fits_exactly, BUCKET) == 108
    on_gpu = composed(f"{BUCKET}=64", profile="gpu")
    fill_in_bucket(on_gpu, SMOLLM2)
    assert OmegaConf.select(on_gpu, BUCKET) == 64, "verl sends a larger tensor by itself"


# ---------------------------------------------------------------------------------------------------------------------
# The memory of a GPU.

H100, H200 = 80_000_000_000, 150_000_000_000


def both(parameters: int, gpus: int, **held) -> list[Resident]:
    return [Resident(ModelSize(parameters, parameters, 1), gpus, **held)] * 2


@pytest.mark.parametrize(
    ("models", "card", "share", "fit"),
    [
        (both(1_540_000_000, 1), H100, 0.6, False),
        (both(1_540_000_000, 1), H100, 0.4, True),
        (both(1_540_000_000, 4), H100, 0.6, True),
        (both(1_540_000_000, 1), H200, 0.6, True),
        (both(7_600_000_000, 4), H100, 0.6, False),
        (both(1_540_000_000, 1, holds_moments=False), H100, 0.6, True),
        ([Resident(ModelSize(1_540_000_000, 37_000_000, 1), 1)] * 2, H100, 0.6, True),
        (both(1_540_000_000, 1)[:1], H100, 0.6, True),
    ],
)
def test_what_fits_on_one_gpu(models, card, share, fit):
    assert fits(models, card, share) is fit


def test_the_largest_share_fits_and_no_more_does():
    models = both(1_540_000_000, 1)
    best = fitting_share(models, H100)
    assert 0.4 <= best <= 0.5
    assert fits(models, H100, best) and not fits(models, H100, best + 0.05)
    assert fitting_share(both(7_600_000_000, 1), H100) == 0.0


ROLES = {"actor": QWEN, "critic": QWEN}


def on_gpus(count: int, *overrides):
    return composed(f"trainer.n_gpus_per_node={count}", *overrides, profile="gpu")


@pytest.mark.parametrize(("gpus", "card", "share"), [(1, H100, 0.45), (4, H100, 0.6), (1, H200, 0.6), (1, None, 0.45)])
def test_the_share_is_computed(gpus, card, share):
    config = on_gpus(gpus)
    assert config.actor_rollout_ref.rollout.gpu_memory_utilization is None
    line = fill_in_share(config, ROLES, card)
    assert config.actor_rollout_ref.rollout.gpu_memory_utilization == share and f"={share:g}, computed" in line
    assert ("assumed" in line) is (card is None)


def test_a_share_that_does_not_fit_is_refused_with_the_one_that_does():
    key = "actor_rollout_ref.rollout.gpu_memory_utilization"
    with pytest.raises(ConfigError, match=f"{key}=0.6: policy and critic hold 37.0 GB .*Try: {key}=0.45"):
        fill_in_share(on_gpus(1, f"{key}=0.6"), ROLES, H100)
    assert fill_in_share(on_gpus(1, f"{key}=0.45"), ROLES, H100) is None


def test_models_that_leave_nothing_are_refused():
    large = ModelSize(7_600_000_000, 7_600_000_000, 1)
    with pytest.raises(ConfigError, match="hold 182.4 GB .*optimizer_offload=true critic.fsdp.optimizer_offload=true"):
        fill_in_share(on_gpus(1), {"actor": large, "critic": large}, H100)


def test_offloading_and_the_shards_are_read():
    offload = ("actor_rollout_ref.actor.fsdp_config.optimizer_offload=true", "critic.fsdp.param_offload=true")
    offloaded = on_gpus(1, *offload)
    fill_in_share(offloaded, ROLES, H100)
    assert offloaded.actor_rollout_ref.rollout.gpu_memory_utilization == 0.6
    with_reference = on_gpus(1, "actor_rollout_ref.ref.fsdp_config.param_offload=false")
    fill_in_share(with_reference, ROLES, H100)
    assert with_reference.actor_rollout_ref.rollout.gpu_memory_utilization == 0.4
    replicated = on_gpus(4, "actor_rollout_ref.actor.fsdp_config.fsdp_size=1", "critic.fsdp.fsdp_size=1")
    fill_in_share(replicated, ROLES, H100)
    assert replicated.actor_rollout_ref.rollout.gpu_memory_utilization == 0.45


# ---------------------------------------------------------------------------------------------------------------------
# The disk.


@pytest.fixture
def free(monkeypatch):
    """A function that sets what `shutil.disk_usage` reports as free."""
    return lambda count: monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=count))


def test_a_full_disk_is_named_with_what_is_needed(tmp_path):
    require_disk(tmp_path / "not" / "yet", 1, "the model", "more")
    with pytest.raises(ConfigError, match=r"the model needs about 1,000,000,000,000 MB, but .* MB free. Try: more"):
        require_disk(tmp_path / "not" / "yet", 10**18, "the model", "more")


def test_the_download_of_weights_needs_room_once(tmp_path, monkeypatch, free, model):
    """In the cache of the hub, in the precision of the files."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    free(2 * PARAMETERS - 1)
    require_disk_for_download(str(tmp_path), PARAMETERS)  # a folder is there
    snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    # As `AutoConfig.from_pretrained("some/model")` reads it from the cache
    config = Qwen2Config(**SIZES, num_hidden_layers=1, dtype="bfloat16")
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda _: config)
    with pytest.raises(ConfigError, match="some/model: the download .*Try: HF_HOME="):
        require_disk_for_download("some/model", PARAMETERS)
    free(2 * PARAMETERS)
    require_disk_for_download("some/model", PARAMETERS)
    free(0)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("main")
    (snapshot / "model.safetensors").write_text("")
    require_disk_for_download("some/model", PARAMETERS)


def test_a_cold_start_needs_room_for_two_checkpoints(tmp_path, free):
    free(32 * 10**9)
    require_disk_for_cold_start("some/model", 10**9, tmp_path)
    free(32 * 10**9 - 1)
    with pytest.raises(ConfigError, match="warm_start.base=some/model: the fine-tuning needs about 32,000 MB"):
        require_disk_for_cold_start("some/model", 10**9, tmp_path)


def test_smollm2_is_made_before_it_is_fine_tuned(tmp_path, free):
    free(5 * 10**9)
    with pytest.raises(ConfigError, match="warm_start.base=smollm2: the fine-tuning needs about 5,104 MB"):
        require_disk_for_cold_start("smollm2", 134_515_008, tmp_path)
    (tmp_path / "smollm2").mkdir()
    require_disk_for_cold_start("smollm2", 134_515_008, tmp_path)
