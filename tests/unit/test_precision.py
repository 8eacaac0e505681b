# SPDX-License-Identifier: Apache-2.0
"""bf16 on a CPU: detected, and replaced where the processor has none."""

from __future__ import annotations

import pytest
from made_config import composed

from recipe.hiper.configuration.hardware import choose_precision, cpu_bf16


@pytest.mark.parametrize(
    ("flags", "detected"),
    [
        ("fpu sse2 avx512f avx512_bf16 amx_bf16 amx_tile", "AMX"),
        ("fpu sse2 avx512f avx512_bf16", "AVX-512"),
        ("fpu sse2 avx2 avx512f", None),
    ],
)
def test_the_flags_of_the_processor(tmp_path, flags, detected):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: amx_bf16 in a name\nflags\t\t: {flags}\n\n" * 2)
    assert cpu_bf16(tmp_path / "cpuinfo") == detected


def test_a_system_that_does_not_say(tmp_path):
    assert cpu_bf16(tmp_path / "nothing") is None


def precisions(config) -> set[str]:
    policy = config.actor_rollout_ref
    sections = (policy.actor.fsdp_config, policy.ref.fsdp_config, config.critic.fsdp)
    mixed = [section.mixed_precision for section in sections if "mixed_precision" in section]
    return {section.param_dtype for section in mixed} | {policy.rollout.dtype}


def test_without_bf16_everything_is_float32_and_one_line_says_so():
    config = composed(model="smollm2")
    assert precisions(config) == {"bf16", "bfloat16"}
    line = choose_precision(config, None)
    assert precisions(config) == {"fp32", "float32"}
    assert "about 3 times slower" in line and "\n" not in line


def test_with_bf16_it_is_kept_and_printed():
    config = composed(model="smollm2")
    assert choose_precision(config, "AMX") == "bf16: computed with AMX of this processor"
    assert precisions(config) == {"bf16", "bfloat16"}


@pytest.mark.parametrize(("profile", "model"), [("cpu", "tiny"), ("gpu", "qwen2.5-1.5b")])
def test_runs_that_do_not_ask_the_processor_for_bf16(profile, model):
    config = composed(profile=profile, model=model)
    before = precisions(config)
    assert choose_precision(config, None) is None and precisions(config) == before


