# SPDX-License-Identifier: Apache-2.0
"""The policy's hidden states at the places of a turn's values: what the engine returns is what the model computes."""

import pytest
import torch
from made_engines import make_engine, one_rank, rows, write_model
from transformers import Qwen2ForCausalLM
from verl.utils import tensordict_utils as tu

from verl_plugins import value_features
from verl_plugins.cpu.engines import CPUFSDPEngineWithLMHead
from verl_plugins.packed.attention import NAME

SIZES = [(7, 5), (20, 3), (4, 9), (11, 1)]
LOW = [2, 0, 8, 5]
"""The last one lies behind a reply of one token, as on rows that only fill up a batch."""


def batch(packed):
    data = rows(SIZES, packed=packed)
    data["value_low"] = torch.tensor(LOW)
    tu.assign_non_tensor(data, with_value_features=True)
    return data


def expected(folder, data):
    """Hidden states after the layers 2, 3 and 4 of four, row by row, without an engine."""
    model = Qwen2ForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    kept, features = [], []
    for index in (1, 2, 3):
        model.model.layers[index].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    for ids, (prompt, reply), low in zip(data["input_ids"].unbind(), SIZES, LOW, strict=True):
        with torch.no_grad():
            model(input_ids=ids.unsqueeze(0), use_cache=False)
        layers = [layer[0] if isinstance(layer, tuple) else layer for layer in kept[-3:]]
        places = [prompt - 1, prompt - 1 + min(low, reply - 1)]
        features.append(torch.cat([layer[0, places] for layer in layers], dim=-1))
    return torch.stack(features)


@pytest.mark.parametrize("packed", [False, True])
def test_they_are_the_hidden_states_before_the_reply_and_before_the_low_value(tmp_path, packed):
    write_model(tmp_path, num_hidden_layers=4)
    with one_rank(tmp_path):
        engine = make_engine(
            CPUFSDPEngineWithLMHead, tmp_path, override={"attn_implementation": NAME if packed else "sdpa"}
        )
        data = batch(packed)
        with engine.eval_mode():
            output = engine.infer_batch(data, loss_function=None)["model_output"]
    features = torch.stack(list(output[value_features.COLUMN].unbind()))
    assert features.dtype == torch.float32 and features.shape == (4, 2, 3 * 32)
    torch.testing.assert_close(features, expected(tmp_path, data), atol=1e-5, rtol=1e-5)


def test_they_are_computed_on_request_only(tmp_path):
    write_model(tmp_path)
    with one_rank(tmp_path):
        engine = make_engine(CPUFSDPEngineWithLMHead, tmp_path)
        with engine.eval_mode():
            output = engine.infer_batch(rows(SIZES), loss_function=None)["model_output"]
    assert value_features.COLUMN not in output and "log_probs" in output


def test_a_model_without_decoder_layers_is_refused():
    with pytest.raises(ValueError, match="Linear has no list of decoder layers. Try: critic.backbone=own"):
        value_features.decoder_layers(torch.nn.Linear(2, 2))
