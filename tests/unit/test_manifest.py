# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is complete when its manifest says so and its files agree; every other one is passed over by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_checkpoints import FILES, make_checkpoint, set_pointer

from recipe.hiper.run_dir.checkpoints import (
    best_checkpoint,
    complete_steps,
    delete_checkpoint,
    delete_old_checkpoints,
    read_pointer,
    saved_steps,
)
from recipe.hiper.run_dir.manifest import MANIFEST_FILE, damage, read_manifest

WEIGHTS = "actor/model_world_size_1_rank_0.pt"


def test_a_checkpoint_that_was_written_whole_is_complete(tmp_path):
    checkpoint = make_checkpoint(tmp_path, 12, success=0.75)
    assert damage(checkpoint) is None and damage(checkpoint, digests=True) is None
    manifest = read_manifest(checkpoint)
    assert (manifest.step, manifest.success, set(manifest.files)) == (12, 0.75, set(FILES))
    size, digest = manifest.files["data.pt"]
    assert size == len("data.pt of step 12") and len(digest) == 64
    assert not list(checkpoint.glob("*.part"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "lacks {name}"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has {less} of {size} bytes of {name}"),
        (lambda path: path.write_bytes(b""), "has 0 of {size} bytes of {name}"),
    ],
)
def test_every_file_that_is_missing_or_truncated_is_named(tmp_path, name, change, message):
    checkpoint = make_checkpoint(tmp_path, 12)
    size = (checkpoint / name).stat().st_size
    change(checkpoint / name)
    assert damage(checkpoint) == message.format(name=name, size=size, less=size - 1)
    assert complete_steps(tmp_path) == [] and saved_steps(tmp_path) == [12]


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=20, deadline=None)
def test_one_changed_bit_is_found_by_the_digests(tmp_path_factory, place, bit):
    checkpoint = make_checkpoint(tmp_path_factory.mktemp("run"), 6)
    content = bytearray((checkpoint / WEIGHTS).read_bytes())
    content[place % len(content)] ^= 1 << bit
    (checkpoint / WEIGHTS).write_bytes(content)
    assert damage(checkpoint) is None  # the size is right
    assert damage(checkpoint, digests=True) == f"has changed bytes in {WEIGHTS}"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 2}', '{"version": 1, "files": 3}'])
def test_an_unreadable_manifest_makes_no_checkpoint(tmp_path, text):
    checkpoint = make_checkpoint(tmp_path, 6)
    (checkpoint / MANIFEST_FILE).write_text(text)
    assert damage(checkpoint) == f"has an unreadable {MANIFEST_FILE}"


def test_without_a_manifest_the_save_was_interrupted(tmp_path):
    assert "so its save was interrupted" in damage(make_checkpoint(tmp_path, 6, complete=False))


def test_a_renamed_checkpoint_is_not_taken_for_another_step(tmp_path):
    renamed = make_checkpoint(tmp_path, 6).rename(tmp_path / "global_step_18")
    assert damage(renamed) == f"holds step 6 according to its {MANIFEST_FILE}"


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("12", 12),
        ("12\n", 12),
        ("12\r\n", 12),
        (" 12 \n", 12),
        ("", None),
        ("\n", None),
        ("abc", None),
        ("global_step_12", None),
        ("-12", None),
        ("1 2", None),
        ("12.0", None),
        ("\ufeff12", None),
        ("١٢", None),  # digits for `str.isdigit`
    ],
)
def test_the_pointer_is_a_number_or_nothing(tmp_path, text, step):
    set_pointer(tmp_path, text)
    assert read_pointer(tmp_path) == step


def test_a_pointer_that_is_no_text_is_nothing(tmp_path):
    (tmp_path / "latest_checkpointed_iteration.txt").write_bytes(b"\xff\xfe1")
    assert read_pointer(tmp_path) is None
    assert read_pointer(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("keep", "keep_best", "left"),
    [(2, False, [18, 24]), (2, True, [12, 18, 24]), (1, False, [24]), (None, False, [6, 12, 18, 24]), (9, True, None)],
)
def test_old_checkpoints_are_deleted_but_for_the_best(tmp_path, keep, keep_best, left):
    for step, success in ((6, 0.5), (12, 0.9), (18, 0.9), (24, None)):
        make_checkpoint(tmp_path, step, success=success)
    assert best_checkpoint(tmp_path) == (0.9, 12)  # the earliest of two
    delete_old_checkpoints(tmp_path, keep, keep_best=keep_best)
    assert complete_steps(tmp_path) == (left or [6, 12, 18, 24])


def test_an_incomplete_checkpoint_is_not_the_best_and_does_not_count(tmp_path):
    for step in (6, 12, 18):
        make_checkpoint(tmp_path, step, success=step / 100)
    (tmp_path / "global_step_18" / WEIGHTS).unlink()
    assert best_checkpoint(tmp_path) == (0.12, 12)
    delete_old_checkpoints(tmp_path, 2, keep_best=False)
    assert complete_steps(tmp_path) == [6, 12] and saved_steps(tmp_path) == [6, 12, 18]
    assert best_checkpoint(tmp_path / "nowhere") is None


def test_a_deletion_that_is_interrupted_leaves_an_incomplete_checkpoint(tmp_path, monkeypatch):
    checkpoint = make_checkpoint(tmp_path, 6)

    def interrupted(path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recipe.hiper.run_dir.checkpoints.shutil.rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        delete_checkpoint(checkpoint)
    assert complete_steps(tmp_path) == []


def test_the_manifest_is_json_that_others_can_read(tmp_path):
    checkpoint = make_checkpoint(tmp_path, 6, success=0.25)
    content = json.loads((checkpoint / MANIFEST_FILE).read_text())
    assert content["version"] == 1 and content["step"] == 6 and content["success"] == 0.25
