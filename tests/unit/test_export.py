# SPDX-License-Identifier: Apache-2.0
"""Models exported from checkpoints of real FSDP2 engines: the same numbers, and what verl's own merger makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from made_engines import VOCABULARY, make_engine, one_rank, rows, whole, write_model
from made_shards import save_parts
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification
from verl.model_merger import __main__ as merger
from verl.workers.utils.losses import sft_loss

from recipe.hiper.trainer.cpu_workers import CPUMultiHeadValueEngine
from recipe.hiper.trainer.critic import head_fields
from verl_plugins.cpu.engines import CPUFSDPEngineWithLMHead
from verl_plugins.export import ExportError, export, full_state, main

LORA = {"lora_rank": 4, "lora_alpha": 8}
HEADS = 3
CONTENTS = {"save_contents": ["model"], "load_contents": ["model"]}


@pytest.fixture
def model(tmp_path):
    with one_rank(tmp_path):
        yield write_model(tmp_path / "model", tie_word_embeddings=True)


def trained(engine_class, path: Path, loss, **settings):
    """An engine two updates away from the weights that it has loaded."""
    engine = make_engine(engine_class, path, **({"checkpoint": CONTENTS} | settings))
    with engine.train_mode():
        for step in range(2):
            engine.train_batch(rows([(6, 4), (5, 5)], seed=step), loss_function=loss)
    return engine


def policy_loss(model_output, data, dp_group=None):
    return sft_loss(None, model_output, data)


def value_loss(model_output, data, dp_group=None):
    return sum((model_output[name].values() - 7).square().mean() for name in head_fields(HEADS)), {}


def saved(engine, folder: Path) -> Path:
    engine.save_checkpoint(str(folder), global_step=2)
    return folder


IDS = torch.randint(VOCABULARY, (1, 12), generator=torch.Generator().manual_seed(5))


def logits(module) -> torch.Tensor:
    with torch.no_grad():
        return module(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("lora", [{}, LORA], ids=["all weights", "adapters"])
def test_an_exported_policy_has_the_logits_of_the_run(model, tmp_path, lora):
    engine = trained(CPUFSDPEngineWithLMHead, model, policy_loss, model=lora)
    export(saved(engine, tmp_path / "actor"), tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert {parameter.dtype for parameter in exported.parameters()} == {torch.float32}
    engine.module.eval()
    expected = logits(engine.module)
    torch.testing.assert_close(logits(exported), expected, rtol=1e-5, atol=1e-6 if lora else 0)
    assert (logits(AutoModelForCausalLM.from_pretrained(model)) - expected).abs().max() > 1e-2
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]


@pytest.mark.parametrize("lora", [{}, LORA], ids=["all weights", "adapters"])
def test_an_exported_critic_keeps_its_heads(model, tmp_path, lora):
    engine = trained(CPUMultiHeadValueEngine, model, value_loss, model=lora, override={"num_value_heads": HEADS})
    export(saved(engine, tmp_path / "critic"), tmp_path / "out")
    exported = AutoModelForTokenClassification.from_pretrained(tmp_path / "out", dtype="auto").eval()
    assert exported.config.num_labels == HEADS and exported.score.weight.dtype == torch.float32
    engine.module.eval()
    expected = logits(engine.module)
    assert expected.shape[-1] == HEADS and expected.abs().min() > 0
    torch.testing.assert_close(logits(exported), expected, rtol=1e-5, atol=1e-6)


def test_bf16_is_a_choice_and_leaves_the_heads_in_float32(model, tmp_path):
    engine = trained(CPUMultiHeadValueEngine, model, value_loss, override={"num_value_heads": HEADS})
    checkpoint = saved(engine, tmp_path / "critic")
    main([str(checkpoint), str(tmp_path / "out"), "--dtype", "bf16"])
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {name for name, x in tensors.items() if x.dtype == torch.float32} == {"score.weight", "score.bias"}
    assert torch.equal(tensors["score.weight"], whole(engine.module.score.weight))


def merge_with_verl(checkpoint: Path, target: Path, monkeypatch) -> tuple[dict, dict[str, torch.Tensor]]:
    """`python -m verl.model_merger merge`; returns the configuration and the weights that it has written."""
    options = ["--backend", "fsdp", "--local_dir", str(checkpoint), "--target_dir", str(target)]
    monkeypatch.setattr("sys.argv", ["model_merger", "merge", *options])
    merger.main()
    return json.loads((target / "config.json").read_text()), load_file(target / "model.safetensors")


def test_what_verls_merger_does(model, tmp_path, monkeypatch):
    """As docs/export.md states it: should it fail after an update of verl, the page and the command may be obsolete."""
    policy = saved(trained(CPUFSDPEngineWithLMHead, model, policy_loss), tmp_path / "actor")
    _, tensors = merge_with_verl(policy, tmp_path / "policy", monkeypatch)
    assert {x.dtype for x in tensors.values()} == {torch.bfloat16}

    engine = trained(CPUMultiHeadValueEngine, model, value_loss, override={"num_value_heads": HEADS})
    critic = saved(engine, tmp_path / "critic")
    config, tensors = merge_with_verl(critic, tmp_path / "merged_critic", monkeypatch)
    assert config["architectures"] == ["Qwen2ForCausalLM"], "whoever loads it as what it says gets no heads"
    heads = whole(engine.module.score.weight)
    assert tensors["score.weight"].dtype == torch.bfloat16 and not torch.equal(tensors["score.weight"].float(), heads)


def test_what_cannot_be_exported_is_said(model, tmp_path, capsys):
    with pytest.raises(ExportError, match=r"holds no model_world_size_N_rank_0.pt. Try: "):
        export(tmp_path, tmp_path / "out")
    engine = trained(
        CPUFSDPEngineWithLMHead, model, policy_loss, model=LORA, checkpoint=CONTENTS | {"save_lora_only": True}
    )
    with pytest.raises(ExportError, match=r"adapters without the weights.*verl.model_merger"):
        export(saved(engine, tmp_path / "adapters"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "adapters"), str(tmp_path)])
    assert ended.value.code == 1 and "exists. Try: another folder" in capsys.readouterr().err


def test_the_parts_of_several_processes_are_put_together(tmp_path):
    save_parts(str(tmp_path))
    expected = torch.load(tmp_path / "whole_0.pt")
    state = full_state(tmp_path)
    assert state.keys() == expected.keys()
    for name, x in expected.items():
        assert torch.equal(state[name], x)
