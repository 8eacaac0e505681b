# SPDX-License-Identifier: Apache-2.0
"""The published files: found in a folder, or downloaded from an address, unpacked and checked."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from agent_system.errors import TaskError

FULL = ("items_shuffle.json", "items_ins_v2.json")
SMALL = ("items_shuffle_1000.json", "items_ins_v2_1000.json")
HUMAN_FILE = "items_human_ins.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class SourceFiles:
    """The catalogue, the attributes with the synthetic instructions, and the human instructions."""

    items: Path
    attributes: Path
    human: Path

    def digests(self, progress: bool) -> dict[str, str]:
        """SHA-256 of each file by name."""
        return {file.name: _digest(file, progress) for file in (self.items, self.attributes, self.human)}


def find_sources(source: str, folder: Path, *, small: bool, progress: bool) -> SourceFiles:
    """Find the published files.

    Args:
        source: a folder, or an address (http, https or file) under which the files lie.
        folder: takes what is downloaded and unpacked.
        small: prefer the small catalogue.
        progress: whether progress bars are drawn.

    Raises:
        TaskError: a file is not there, or is broken.
    """
    is_address = "://" in source
    pairs = (SMALL, FULL) if small else (FULL, SMALL)
    for items, attributes in pairs:
        found = [_obtain(source, name, folder, is_address, progress) for name in (items, attributes, HUMAN_FILE)]
        if found[0] is not None:
            missing = [name for name, file in zip((items, attributes, HUMAN_FILE), found, strict=True) if file is None]
            if missing:
                raise TaskError(f"{source} has {items} but not {', '.join(missing)}: all three files are needed")
            return SourceFiles(*found)
    raise TaskError(
        f"{source} holds neither {FULL[0]} nor {SMALL[0]} (nor either with .gz). The files are published with the code "
        "of WebShop (princeton-nlp/WebShop, setup.sh names them); without --source a catalogue is generated"
    )


def _obtain(source: str, name: str, folder: Path, is_address: bool, progress: bool) -> Path | None:
    """The file, downloaded or unpacked into `folder` if need be; None if there is none of that name."""
    if (folder / name).exists():
        return folder / name
    for given in (name, f"{name}.gz"):
        file = Path(source).expanduser() / given
        if is_address:
            file = _download(f"{source.rstrip('/')}/{given}", folder / given, progress)
        if file is not None and file.exists():
            return file if given == name else _unpacked(file, folder / name)
    return None


def _unpacked(packed: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    try:
        with gzip.open(packed, "rb") as stream, partial.open("wb") as out:
            shutil.copyfileobj(stream, out, _CHUNK)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TaskError(f"{packed} is broken or only a part of the file ({error}); download it again") from error
    partial.rename(target)
    return target


def _download(address: str, target: Path, progress: bool) -> Path | None:
    """Download a file, going on where an earlier attempt stopped; None if the server has no such file.

    Raises:
        TaskError: the server cannot be reached, or the connection ended too early.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(target.suffix + ".partial")
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            goes_on = answer.status == 206
            length = answer.headers.get("Content-Length")
            total = None if length is None else int(length) + (have if goes_on else 0)
            with (
                partial.open("ab" if goes_on else "wb") as out,
                tqdm(total=total, initial=have if goes_on else 0, desc=target.name, unit="B", unit_scale=True,
                     disable=not progress) as bar,
            ):  # fmt: skip
                while chunk := answer.read(_CHUNK):
                    out.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            return None
        if error.code == 416 and have:  # all of it is there, or it is another file now: from the start
            partial.unlink()
            return _download(address, target, progress)
        raise _broken_off(address, error) from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), FileNotFoundError):  # file://
            return None
        raise _broken_off(address, error) from error
    if total is not None and partial.stat().st_size != total:
        raise TaskError(
            f"{address}: {partial.stat().st_size} of {total} bytes arrived; the same command goes on where it stopped"
        )
    partial.rename(target)
    return target


def _broken_off(address: str, error: Exception) -> TaskError:
    return TaskError(f"{address} cannot be downloaded ({error}); the same command goes on where it stopped")


def _digest(file: Path, progress: bool) -> str:
    digest = hashlib.sha256()
    size = file.stat().st_size
    with (
        file.open("rb") as stream,
        tqdm(total=size, desc=f"checking {file.name}", unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
