# SPDX-License-Identifier: Apache-2.0
"""Preparing a shop: once, resumable, and never from the wrong files without saying so."""

from __future__ import annotations

import contextlib
import functools
import gzip
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from agent_system.environments.webshop import prepare, sources
from agent_system.environments.webshop.generator.catalogue import CatalogueSpec, write_catalogue
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.nouns import LexiconTagger
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop
from agent_system.environments.webshop.shop import MANIFEST, Shop
from agent_system.environments.webshop.sources import ORIGIN, find_sources
from agent_system.errors import ConfigError, TaskError

CATALOGUE = CatalogueSpec(products=300, seed=5)
SPEC = ShopSpec(catalogue=CATALOGUE, tagger="lexicon")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The three published files, in small."""
    folder = tmp_path_factory.mktemp("source")
    write_catalogue(folder, CATALOGUE)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A shop that was made in one go."""
    folder = tmp_path_factory.mktemp("finished")
    prepare_shop(folder, SPEC)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Stop(BaseException):
    """As an interrupt: no `except Exception` may hide it."""


def test_a_shop_can_be_played_in_and_is_reused(finished, monkeypatch):
    shop = Shop(finished)
    assert len(shop) == 300 and shop.manifest.tagger == "lexicon@1"
    assert shop.search(shop.product(7).title)[0] == 7
    goal = shop.goal(Goals.HUMAN, Split.FIXED, 0, 0)
    assert goal.instruction and isinstance(goal.options, tuple)
    monkeypatch.setattr(prepare, "write_lines", lambda *args, **kwargs: pytest.fail("made again"))
    assert prepare_shop(finished, SPEC) == shop.manifest


@pytest.mark.parametrize("stage", ["products", "nouns", "index", "goals"])
def test_a_run_that_was_stopped_goes_on_and_gives_the_same_shop(finished, tmp_path, monkeypatch, stage):
    folder = tmp_path / "shop"
    with monkeypatch.context() as patched:
        patched.setattr(prepare._Maker, stage, _stopped(stage))
        with pytest.raises(Stop):
            prepare_shop(folder, SPEC)
    with pytest.raises(ConfigError, match=f"{MANIFEST} is missing"):
        Shop(folder)
    if stage != "products":
        monkeypatch.setattr(prepare, "read_products", lambda *args: pytest.fail("products were read again"))
    prepare_shop(folder, SPEC)
    assert contents(folder) == contents(finished)


def _stopped(stage):
    def stop(maker):
        raise Stop

    stop.__name__ = stage
    return stop


def test_nouns_go_on_where_they_stopped(finished, tmp_path, monkeypatch):
    """With spaCy they are the long part."""
    folder, asked = tmp_path / "shop", []

    class Counting(LexiconTagger):
        def nouns(self, titles):
            asked.append(len(titles))
            return super().nouns(titles)

    class Tired(Counting):
        def nouns(self, titles):
            if asked:
                raise Stop
            return super().nouns(titles)

    monkeypatch.setattr(prepare, "_TITLES_AT_ONCE", 100)
    monkeypatch.setattr(prepare, "tagger_by_name", lambda name: Tired())
    with pytest.raises(Stop):
        prepare_shop(folder, SPEC)
    with (folder / "nouns.jsonl").open("ab") as file:
        file.write(b'["half a li')  # what a kill leaves of a line
    monkeypatch.setattr(prepare, "tagger_by_name", lambda name: Counting())
    prepare_shop(folder, SPEC)
    assert asked == [100, 100, 100]
    assert contents(folder) == contents(finished)


def test_two_at_once_wait_for_each_other(finished, tmp_path):
    command = [
        sys.executable, "-m", "agent_system.environments.webshop.prepare", "--data-dir", str(tmp_path / "shop"),
        "--products", "300", "--seed", "5", "--tagger", "lexicon",
    ]  # fmt: skip
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] and "300 products; goals: " in outputs[0][0]
    assert contents(tmp_path / "shop") == contents(finished)


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_rebuild_that_was_killed_leaves_nothing_of_the_shop_before(finished, tmp_path, monkeypatch, rebuild):
    """Killed while it took away the shop of another catalogue, whose nouns may not be taken for the new one's."""
    folder = tmp_path / "shop"
    prepare_shop(folder, replace(SPEC, catalogue=CatalogueSpec(products=300, seed=6)))
    with monkeypatch.context() as patched:
        patched.setattr(prepare.shutil, "rmtree", _stopped("rmtree"))
        with pytest.raises(Stop):
            prepare_shop(folder, SPEC, rebuild=True)
    prepare_shop(folder, SPEC, rebuild=rebuild)
    assert contents(folder) == contents(finished)


def test_a_run_that_was_killed_while_it_took_its_first_note_goes_on(finished, tmp_path):
    (tmp_path / "preparing.json.partial").write_text("{")
    prepare_shop(tmp_path, SPEC)
    assert contents(tmp_path) == contents(finished)


def test_a_rebuild_leaves_what_is_not_ours(finished, tmp_path):
    folder = tmp_path / "shop"
    shutil.copytree(finished, folder)
    strange = ["notes.txt", "plots/index.svg", "generated/notes.txt", "products.txt"]
    for name in strange:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    manifest = prepare_shop(folder, replace(SPEC, catalogue=CatalogueSpec(products=301, seed=5)), rebuild=True)
    assert manifest.products == 301 and not manifest.files.keys() & set(strange)
    assert [(folder / name).read_text() for name in strange] == ["mine"] * 4
    prepare._clear(folder)
    assert contents(folder).keys() == {".lock", *strange}


# ---------------------------------------------------------------- what is refused


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"thesis\.tex.*--data-dir"):
        prepare_shop(tmp_path, SPEC)


@pytest.mark.parametrize("rebuild", [False, True])
@pytest.mark.parametrize("name", ["source", "generated"])
def test_a_folder_of_something_else_with_a_folder_named_as_ours(tmp_path, name, rebuild):
    for file in ("thesis.txt", "src/main.c", f"{name}/photo.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("mine")
    with pytest.raises(ConfigError, match=r"\['src', 'thesis\.txt'\] and no shop"):
        prepare_shop(tmp_path, SPEC, rebuild=rebuild)
    assert contents(tmp_path).keys() == {".lock", "thesis.txt", "src/main.c", f"{name}/photo.png"}


def test_other_data_and_other_versions(finished, source, tmp_path):
    folder = tmp_path / "shop"
    shutil.copytree(finished, folder)
    rebuild = re.escape(f"--data-dir {folder} --rebuild")
    with pytest.raises(ConfigError, match=rf"other data.*{rebuild}"):
        prepare_shop(folder, ShopSpec(catalogue=CatalogueSpec(products=301, seed=5)))
    other = tmp_path / "other"
    write_catalogue(other, CatalogueSpec(products=300, seed=6))
    with pytest.raises(ConfigError, match=rf"items_shuffle\.json.* differ.*{rebuild}"):
        prepare_shop(folder, ShopSpec(source=str(other)))
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format": 0}))
    with pytest.raises(ConfigError, match=rf"format 0.*{rebuild}"):
        Shop(folder)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(ConfigError, match=rf"cannot be read.*{rebuild}"):
        Shop(folder)
    assert prepare_shop(folder, ShopSpec(source=str(other), tagger="lexicon"), rebuild=True).products == 300
    assert Shop(folder).product(0) != Shop(finished).product(0)


@pytest.mark.parametrize("name", ["products.jsonl", "index/positions.npy", "synthetic_goals_choice.npy"])
def test_a_file_that_was_cut_or_removed(finished, tmp_path, name):
    folder = tmp_path / "shop"
    shutil.copytree(finished, folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=rf"{re.escape(name)} is missing or was changed.*--rebuild"):
        Shop(folder)
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=rf"{re.escape(name)} is missing or was changed.*--rebuild"):
        Shop(folder)


def test_the_command_line_ends_with_the_message_alone(tmp_path):
    command = [sys.executable, "-m", "agent_system.environments.webshop.prepare", "--data-dir", str(tmp_path / "shop")]
    run = subprocess.run([*command, "--source", str(tmp_path / "nowhere")], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.startswith("error: ") and "items_shuffle.json" in run.stderr
    assert "Traceback" not in run.stderr


# ---------------------------------------------------------------- the published files


def test_gzipped_and_small_files(source, tmp_path):
    for name in ("items_shuffle_1000.json", "items_ins_v2_1000.json", "items_human_ins.json"):
        plain = source / name.replace("_1000", "")
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    found = find_sources(str(tmp_path), tmp_path / "unpacked", small=False, progress=False)
    assert found.items.name == "items_shuffle_1000.json"
    assert found.items.read_bytes() == (source / "items_shuffle.json").read_bytes()


def test_a_cut_archive_and_missing_companions_are_named(source, tmp_path):
    whole = gzip.compress((source / "items_shuffle.json").read_bytes())
    (tmp_path / "items_shuffle.json.gz").write_bytes(whole[:-100])
    with pytest.raises(TaskError, match=r"items_shuffle\.json\.gz is broken or only a part"):
        find_sources(str(tmp_path), tmp_path / "unpacked", small=False, progress=False)
    (tmp_path / "items_shuffle.json.gz").write_bytes(whole)
    with pytest.raises(TaskError, match=r"has items_shuffle\.json but not items_ins_v2\.json, items_human_ins\.json"):
        find_sources(str(tmp_path), tmp_path / "unpacked", small=False, progress=False)


class Ranged(http.server.SimpleHTTPRequestHandler):
    """Serves the rest of a file on request, as most servers do."""

    asked: list[str] = []

    def do_GET(self):
        wanted = self.headers.get("Range")
        file = Path(self.translate_path(self.path))
        if wanted is None or not file.exists():
            return super().do_GET()
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        rest = file.read_bytes()[start:]
        if not rest:
            return self.send_error(416)
        self.send_response(206)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(folder, handler=Ranged):
    """The address of a server for `folder`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("handler", [Ranged, http.server.SimpleHTTPRequestHandler])
def test_a_download_goes_on_where_it_stopped(source, tmp_path, handler):
    Ranged.asked.clear()
    whole = (source / "items_shuffle.json").read_bytes()
    (tmp_path / "items_shuffle.json.partial").write_bytes(whole[:1000])
    with served(source, handler) as address:
        found = find_sources(address, tmp_path, small=False, progress=False)
    assert found.items.read_bytes() == whole
    assert found.human.read_bytes() == (source / "items_human_ins.json").read_bytes()
    assert Ranged.asked == (["bytes=1000-"] if handler is Ranged else [])
    with pytest.raises(TaskError, match="cannot be downloaded"):
        find_sources(address, tmp_path / "again", small=False, progress=False)


def test_a_download_that_was_killed_at_its_very_end(source, tmp_path):
    """All bytes are there but not the name: the server has nothing more to send (416)."""
    whole = (source / "items_shuffle.json").read_bytes()
    (tmp_path / "items_shuffle.json.partial").write_bytes(whole)
    with served(source) as address:
        found = find_sources(address, tmp_path, small=False, progress=False)
    assert found.items.read_bytes() == whole


def test_a_file_address_without_the_full_catalogue(source, tmp_path):
    for name in ("items_shuffle_1000.json", "items_ins_v2_1000.json", "items_human_ins.json"):
        shutil.copy(source / name.replace("_1000", ""), tmp_path / name)
    found = find_sources(tmp_path.as_uri(), tmp_path / "made", small=False, progress=False)
    assert found.items.name == "items_shuffle_1000.json"


# ---------------------------------------------------------------- a source that is another one now

NAMES = ("items_shuffle.json", "items_ins_v2.json", "items_human_ins.json")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The three files of another catalogue."""
    folder = tmp_path_factory.mktemp("other")
    write_catalogue(folder, CatalogueSpec(products=300, seed=6))
    return folder


def pack(plain: Path, folder: Path) -> Path:
    """The files of `plain`, gzipped. All get the same time, as those of an archive may have."""
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        (folder / f"{name}.gz").write_bytes(gzip.compress((plain / name).read_bytes()))
        os.utime(folder / f"{name}.gz", (0, 0))
    return folder


def found(source, folder: Path) -> list[bytes]:
    files = find_sources(str(source), folder, small=False, progress=False)
    return [file.read_bytes() for file in (files.items, files.attributes, files.human)]


def plain(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in NAMES]


def test_unpacked_files_are_used_for_what_they_were_unpacked_from_alone(source, other, tmp_path, monkeypatch):
    one, two, made = pack(source, tmp_path / "one"), pack(other, tmp_path / "two"), tmp_path / "made"
    assert found(one, made) == plain(source)
    assert found(two, made) == plain(other)
    assert found(source, made) == plain(source)
    with pytest.raises(TaskError, match="nowhere holds neither"):
        found(tmp_path / "nowhere", made)
    with monkeypatch.context() as patched:
        patched.setattr(sources, "_unpacked", lambda *args: pytest.fail("unpacked again"))
        assert found(two, made) == plain(other)
    pack(source, two)
    os.utime(two / "items_shuffle.json.gz")
    assert found(two, made)[0] == plain(source)[0]


def test_downloads_of_another_address_are_not_used(source, other, tmp_path):
    made = tmp_path / "made"
    with served(source) as first, served(other) as second:
        assert found(first, made) == plain(source)
        (made / "notes.txt").write_text("mine")
        (made / "items_shuffle_1000.json.gz.partial").write_bytes(b"x")
        assert found(second, made) == plain(other)
    assert contents(made).keys() == {*NAMES, ORIGIN, "notes.txt"}
    assert found(f"{second}/", made) == plain(other)  # no longer served: without a download
    with pytest.raises(TaskError, match="cannot be downloaded"):
        found(first, made)


def test_a_download_from_another_address_starts_anew(source, other, tmp_path):
    """A part of one file is not completed with the rest of another."""
    with served(source) as first, served(other) as second:
        found(first, tmp_path)
        for name in NAMES:
            (tmp_path / name).rename(tmp_path / f"{name}.partial")
        os.truncate(tmp_path / f"{NAMES[0]}.partial", 1000)
        Ranged.asked.clear()
        assert found(second, tmp_path) == plain(other) and Ranged.asked == []
        (tmp_path / NAMES[0]).rename(tmp_path / f"{NAMES[0]}.partial")
        os.truncate(tmp_path / f"{NAMES[0]}.partial", 1000)
        assert found(second, tmp_path) == plain(other) and Ranged.asked == ["bytes=1000-"]


def test_an_address_after_a_folder_and_back(source, other, tmp_path):
    packed, made = pack(source, tmp_path / "packed"), tmp_path / "made"
    assert found(packed, made) == plain(source)
    with served(other) as address:
        assert found(address, made) == plain(other)
    assert found(packed, made) == plain(source)


def test_files_that_were_put_there_by_hand(source, tmp_path):
    """They serve for every address, and stay: they may no longer be available for download."""
    made = pack(source, tmp_path / "made")
    assert found(made, made) == found(made.as_uri(), made) == plain(source)
    for address in ("http://127.0.0.1:1/a", "http://127.0.0.1:1/b"):
        assert found(address, made) == plain(source)
    assert contents(made).keys() == {*NAMES, *(f"{name}.gz" for name in NAMES)}


def test_downloads_that_are_named_as_a_folder_are_not_deleted(source, tmp_path):
    with served(source) as address:
        found(address, tmp_path)
    before = contents(tmp_path)
    assert found(tmp_path, tmp_path) == found(tmp_path.as_uri(), tmp_path) == plain(source)
    assert contents(tmp_path) == before


def test_a_shop_of_another_source_is_refused_and_made_anew_on_demand(source, other, finished, tmp_path):
    one, two, folder = pack(other, tmp_path / "one"), pack(source, tmp_path / "two"), tmp_path / "shop"
    prepare_shop(folder, ShopSpec(source=str(one), tagger="lexicon"))
    with pytest.raises(ConfigError, match=r"other data.*items_shuffle\.json.* differ"):
        prepare_shop(folder, ShopSpec(source=str(two), tagger="lexicon"))
    prepare_shop(folder, ShopSpec(source=str(two), tagger="lexicon"), rebuild=True)
    assert Shop(folder).manifest == Shop(finished).manifest
