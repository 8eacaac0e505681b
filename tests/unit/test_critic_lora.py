# SPDX-License-Identifier: Apache-2.0
"""LoRA on the critic: the value heads are left alone, trained in full, in float32, and part of every checkpoint."""

from __future__ import annotations

import json

import pytest
import torch
from made_engines import BF16, make_engine, one_rank, rows, whole, write_model
from peft.tuners.lora import LoraLayer

from recipe.hiper.trainer.cpu_workers import CPUMultiHeadValueEngine
from recipe.hiper.trainer.critic import Float32Heads, head_fields

HEADS = 3
LORA = {"lora_rank": 4, "lora_alpha": 8}
CONTENTS = {"save_contents": ["model", "optimizer", "extra"], "load_contents": ["model", "optimizer", "extra"]}


@pytest.fixture
def model(tmp_path):
    with one_rank(tmp_path):
        yield write_model(tmp_path / "model")


def critic(path, **settings):
    settings = {"model": LORA, "override": {"num_value_heads": HEADS}} | settings
    return make_engine(CPUMultiHeadValueEngine, path, **settings)


def heads_of(engine) -> Float32Heads:
    (heads,) = (part for part in engine.module.modules() if isinstance(part, Float32Heads))
    return heads


def set_heads(engine, scale: float) -> None:
    """Values of a size that a trained critic has: returns reach 10."""
    heads = heads_of(engine)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        heads.weight.to_local().copy_(torch.randn(HEADS, 32, generator=generator) * scale)
        heads.bias.to_local().copy_(torch.tensor([10.01, -3.03, 21.07]))


def values_of(engine) -> dict[str, torch.Tensor]:
    output = engine.infer_batch(rows([(13, 5)]), loss_function=None)
    return {name: output["model_output"][name].values() for name in head_fields(HEADS)}


def mean_square(model_output, data, dp_group=None):
    """A loss that reaches every parameter."""
    values = torch.cat([model_output[name].values() for name in head_fields(HEADS)])
    return (values**2).mean() + values.mean(), {}


def train(engine, steps: int) -> None:
    with engine.train_mode():
        for _ in range(steps):
            engine.train_batch(rows([(7, 3), (4, 6)]), loss_function=mean_square)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "score"]])
def test_no_adapter_lies_on_the_heads_and_they_are_trained_in_full(model, targets):
    engine = critic(model, model=LORA | {"target_modules": targets})
    adapters = [name for name, part in engine.module.named_modules() if isinstance(part, LoraLayer)]
    assert any(name.endswith("q_proj") for name in adapters) and not any("score" in name for name in adapters)
    heads = heads_of(engine)
    assert heads.weight.requires_grad and heads.bias.requires_grad and heads.weight.dtype == torch.float32
    trained = [name for name, parameter in engine.module.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name or "score" in name for name in trained)
    before = whole(heads.weight)
    train(engine, 2)
    assert (whole(heads.weight) != before).all()


def test_with_a_bf16_backbone_values_are_those_of_float64_heads(model):
    engine = critic(model, engine={"mixed_precision": BF16})
    train(engine, 2)  # adapters start at zero, where a part that they add in bf16 would not show
    set_heads(engine, scale=2.0)
    hidden: list[torch.Tensor] = []
    heads = heads_of(engine)
    heads.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]), prepend=True)
    with engine.eval_mode():
        values = values_of(engine)
    (states,) = hidden  # [1, tokens, hidden size]
    exact = torch.nn.functional.linear(states.double(), whole(heads.weight).double(), whole(heads.bias).double())
    assert exact.abs().max() > 20
    for head, name in enumerate(head_fields(HEADS)):
        assert values[name].dtype == torch.float32
        assert (values[name].double() - exact[0, :, head]).abs().max() < 1e-3, name


@pytest.mark.parametrize("adapters_only", [True, False])
def test_a_checkpoint_keeps_the_heads(model, tmp_path, adapters_only):
    saved = critic(model, checkpoint=CONTENTS | {"save_lora_only": adapters_only})
    train(saved, 3)
    set_heads(saved, scale=0.5)
    folder = tmp_path / "checkpoint"
    saved.save_checkpoint(str(folder), global_step=3)
    (shard,) = folder.glob("model_*.pt")
    assert (len(torch.load(shard, weights_only=False)) < 40) is adapters_only
    assert json.loads((folder / "lora_train_meta.json").read_text())["r"] == LORA["lora_rank"]
    with saved.eval_mode():
        expected = values_of(saved)

    loaded = critic(model, checkpoint=CONTENTS | {"save_lora_only": adapters_only})
    with loaded.eval_mode():
        before = values_of(loaded)
    loaded.load_checkpoint(str(folder), del_local_after_load=False)
    with loaded.eval_mode():
        after = values_of(loaded)
    for name in head_fields(HEADS):
        assert not torch.equal(before[name], expected[name])
        torch.testing.assert_close(after[name], expected[name], rtol=0, atol=0, msg=name)


def test_adapters_without_heads_are_refused(model, tmp_path):
    """Their values would all be 0, and nothing would say so."""
    engine = critic(model, checkpoint=CONTENTS | {"save_lora_only": True})
    engine.save_checkpoint(str(tmp_path / "checkpoint"), global_step=1)
    (heads,) = (tmp_path / "checkpoint").glob("value_heads_*.pt")
    heads.unlink()
    with pytest.raises(FileNotFoundError, match=r"not its value heads \(value_heads_world_size_1_rank_0.pt\).*Try: "):
        engine.load_checkpoint(str(tmp_path / "checkpoint"), del_local_after_load=False)
