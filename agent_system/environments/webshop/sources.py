# SPDX-License-Identifier: Apache-2.0
"""The published files: found in a folder, or downloaded from an address, unpacked and checked."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tqdm import tqdm

from agent_system.errors import TaskError

FULL = ("items_shuffle.json", "items_ins_v2.json")
SMALL = ("items_shuffle_1000.json", "items_ins_v2_1000.json")
HUMAN_FILE = "items_human_ins.json"
ORIGIN = "origin.txt"
"""File in the folder of downloads with the address they are from; without it the user put them there."""
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
        source: a folder, or an address (http, https or file) under which the files are.
        folder: takes what is downloaded and unpacked. What was taken there from another address is deleted.
        small: prefer the small catalogue.
        progress: whether progress bars are drawn.

    Raises:
        TaskError: a file is not there, or is broken.
    """
    local_folder, origin = _local_folder(source), source.rstrip("/")
    if local_folder is None:
        _forget_others(folder, origin)

    def obtain(name: str) -> Path | None:
        if local_folder is None:
            return _downloaded(origin, name, folder, progress)
        return _looked_up(local_folder, name, folder)

    pairs = (SMALL, FULL) if small else (FULL, SMALL)
    for items, attributes in pairs:
        names = (items, attributes, HUMAN_FILE)
        files = [obtain(name) for name in names]
        if files[0] is not None:
            missing = [name for name, file in zip(names, files, strict=True) if file is None]
            if missing:
                raise TaskError(
                    f"{source} has {items} but not {', '.join(missing)}, and all three files are needed. "
                    "Try: put the missing files there"
                )
            return SourceFiles(*cast("list[Path]", files))  # none is missing
    raise TaskError(
        f"{source} holds neither {FULL[0]} nor {SMALL[0]} (nor either with .gz). Try: download the files that "
        "setup.sh of princeton-nlp/WebShop names, or leave out --source (in a run env.webshop.source=null) to generate "
        "a catalogue"
    )


def _local_folder(source: str) -> Path | None:
    """The folder that `source` names; None if it is an address to download from."""
    if source.startswith("file://"):
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(source).path))
    return None if "://" in source else Path(source).expanduser()


def _looked_up(source: Path, name: str, folder: Path) -> Path | None:
    """The file in the folder `source`, or its copy unpacked into `folder`; None if there is none of that name."""
    packed, copy = source / f"{name}.gz", folder / name
    if (source / name).exists():
        return source / name
    if not packed.exists():
        return None
    if source.resolve() != folder.resolve():
        _forget_others(folder, str(source.resolve()))
        _set_origin(folder, str(source.resolve()))
        if copy.exists() and copy.stat().st_mtime_ns == packed.stat().st_mtime_ns:
            return copy
    return _unpacked(packed, copy)


def _downloaded(address: str, name: str, folder: Path, progress: bool) -> Path | None:
    """The file in `folder`, downloaded if need be; None if there is none of that name."""
    if (folder / name).exists():
        return folder / name
    for published in (name, f"{name}.gz"):
        file = _download(address, folder / published, progress)
        if file is not None:
            return file if published == name else _unpacked(file, folder / name)
    return None


def _forget_others(folder: Path, origin: str) -> None:
    """Delete our files in `folder` if they are from elsewhere than `origin`."""
    marker = folder / ORIGIN
    if marker.exists() and marker.read_text(encoding="utf-8") != origin:
        for name in (*FULL, *SMALL, HUMAN_FILE):
            for ending in ("", ".gz", ".partial", ".gz.partial"):
                (folder / f"{name}{ending}").unlink(missing_ok=True)
        marker.unlink()  # last: after a kill before this line, the next start resumes


def _set_origin(folder: Path, origin: str) -> None:
    """Record where the files of `folder` are from, before the first of them is written."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{ORIGIN}.partial"
    partial.write_text(origin, encoding="utf-8")
    partial.rename(folder / ORIGIN)


def _unpacked(packed: Path, target: Path) -> Path:
    """Unpack a file; the copy gets its time, by which it is known again."""
    partial = target.with_suffix(".partial")
    time = packed.stat().st_mtime_ns
    try:
        with gzip.open(packed, "rb") as stream, partial.open("wb") as out:
            shutil.copyfileobj(stream, out, _CHUNK)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TaskError(f"{packed} is broken or only a part of the file ({error}). Try: download it again") from error
    os.utime(partial, ns=(time, time))
    partial.rename(target)
    return target


def _download(origin: str, target: Path, progress: bool) -> Path | None:
    """Download the file of `target`'s name, resuming an earlier attempt; None if the server has none.

    Raises:
        TaskError: the server cannot be reached, or the connection ended too early.
    """
    address = f"{origin}/{target.name}"
    partial = target.with_suffix(target.suffix + ".partial")
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            resumes = answer.status == 206
            length = answer.headers.get("Content-Length")
            total = None if length is None else int(length) + (have if resumes else 0)
            _set_origin(target.parent, origin)
            with (
                partial.open("ab" if resumes else "wb") as out,
                tqdm(total=total, initial=have if resumes else 0, desc=target.name, unit="B", unit_scale=True,
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
            return _download(origin, target, progress)
        raise _broken_off(address, error) from error
    except (OSError, http.client.HTTPException) as error:
        raise _broken_off(address, error) from error
    if total is not None and partial.stat().st_size != total:
        raise TaskError(
            f"{address}: {partial.stat().st_size} of {total} bytes arrived. "
            "Try: the same command, which resumes the download"
        )
    partial.rename(target)
    return target


def _broken_off(address: str, error: Exception) -> TaskError:
    return TaskError(f"{address} cannot be downloaded ({error}). Try: the same command, which resumes the download")


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
