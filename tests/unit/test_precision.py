# SPDX-License-Identifier: Apache-2.0
"""bf16 on a CPU: detected, and replaced where the processor has none."""

from __future__ import annotations

import pytest
from made_config import composed

from recipe.hiper.configuration.hardware import choose_precision
from verl_plugins.cpu.processor import fastest_dtype, processor_flags, processor_vendor


@pytest.mark.parametrize(
    ("vendor", "flags", "fastest"),
    [
        ("GenuineIntel", "fpu sse2 avx512f avx512_bf16 amx_bf16 amx_tile", "bf16"),
        ("GenuineIntel", "fpu sse2 avx512f avx512_bf16", "fp32"),
        ("AuthenticAMD", "fpu sse2 avx512f avx512_bf16", "bf16"),
        ("AuthenticAMD", "fpu sse2 avx2 avx512f", "fp32"),
    ],
)
def test_vendor_and_flags_of_the_processor(tmp_path, vendor, flags, fastest):
    core = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: amx_bf16 in a name\nflags\t\t: {flags}\n\n"
    path = tmp_path / "cpuinfo"
    path.write_text(core * 2)
    assert fastest_dtype(processor_flags(path), processor_vendor(path)) == fastest


def test_a_system_that_does_not_say(tmp_path):
    nothing = tmp_path / "nothing"
    assert fastest_dtype(processor_flags(nothing), processor_vendor(nothing)) == "fp32"


def precisions(config) -> set[str]:
    policy = config.actor_rollout_ref
    sections = (policy.actor.fsdp_config, policy.ref.fsdp_config, config.critic.fsdp)
    mixed = [section.mixed_precision for section in sections if "mixed_precision" in section]
    return {section.param_dtype for section in mixed} | {policy.rollout.dtype}


def test_the_environment_decides_where_it_says_so(monkeypatch):
    monkeypatch.setenv("VERL_CPU_DTYPE", "bf16")
    assert fastest_dtype(frozenset()) == "bf16"
    monkeypatch.setenv("VERL_CPU_DTYPE", "half")
    with pytest.raises(ValueError, match="VERL_CPU_DTYPE=half .*Try: unset VERL_CPU_DTYPE"):
        fastest_dtype()


def test_without_bf16_everything_is_float32_and_one_line_says_so():
    config = composed(model="smollm2")
    assert precisions(config) == {"bf16", "bfloat16"}
    line = choose_precision(config, "fp32")
    assert precisions(config) == {"fp32", "float32"}
    assert "about 3 times slower" in line and "\n" not in line


def test_with_bf16_it_is_kept_and_printed():
    config = composed(model="smollm2")
    line = "bf16: this processor is faster in it (or VERL_CPU_DTYPE in the environment says so)"
    assert choose_precision(config, "bf16") == line
    assert precisions(config) == {"bf16", "bfloat16"}


@pytest.mark.parametrize(("profile", "model"), [("cpu", "tiny"), ("gpu", "qwen2.5-1.5b")])
def test_runs_that_do_not_ask_the_processor_for_bf16(profile, model):
    config = composed(profile=profile, model=model)
    before = precisions(config)
    assert choose_precision(config, "fp32") is None and precisions(config) == before
