"""Folders of files that are made once per machine and then shared by every process: whole, checked, marked as used.

    <cache>/<kind>-v<version>-<key>/     one cache. Its `harness-cache.json` holds size and checksums of its files; its
                                         time of change is that of the last use; whoever uses it locks it
    <cache>/.building/<name>.lock        locked by the process that builds or removes <name>
    <cache>/.building/<name>.<random>/   what that process works on; where nobody holds the lock, what a killed one left

The locks are `flock`s, which the operating system gives back however their holder ends. A network file system is as
good as its locks: NFS passes them to its server unless it is mounted with `nolock` or `local_lock`; then two machines
may build one cache at once, and one of them stop with a missing file. A file system without locks is refused. Memory
is shared by the processes of one machine only, so a local disk is the better place anyway.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from harness.errors import DataError
from harness.store.files import to_disk, write_json

SEAL = "harness-cache.json"
BUILDING = ".building"
#: bytes of one checksum: several threads sum one file
_PIECE = 1 << 24
#: bytes read at once: they are still in the core's own cache when they are summed
_BLOCK = 1 << 20
#: what `flock` says on a file system that has none
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}
_NOT_OURS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS}

#: name, bytes, time of change and inode of a file
Stamp = tuple[str, int, int, int]

#: the open seals of the caches that this process uses to its end; closing one gives its lock back
_in_use: dict[Path, int] = {}


def cache_folder() -> Path:
    """$HARNESS_CACHE, or ~/.cache/harness."""
    return Path(os.environ.get("HARNESS_CACHE") or "~/.cache/harness").expanduser()


def build_once(folder: Path, build: Callable[[Path], None], *, verify: bool = False) -> Path:
    """`folder`, filled by `build` where it is missing or damaged: whole or not at all, whoever asks at once.

    One process builds, the others wait. From then on the folder counts as used until the process ends. Sizes are
    compared at every call, with `verify` checksums too, once per process; a damaged folder is built again, with a
    warning. `build` gets an empty folder, and may call `make_room` and `build_once`.

    Raises:
        DataError: the file system has no locks. Whatever `build` raises leaves nothing behind.
    """
    seal = whole_seal(folder, build, verify)
    # pop, not get: no two threads close the same one
    before = _in_use.pop(folder, None)
    _in_use[folder] = seal
    if before is not None:
        os.close(before)
    return folder


def damage(folder: Path, contents: bool) -> str | None:
    """The first file that is missing or has another size or, with `contents`, other bytes than when it was built."""
    files = _sealed(folder)
    if files is None:
        return f"{SEAL} is missing or damaged"
    stamps = _stamps(folder)
    sizes = {name: size for name, size, *_ in stamps}
    for name, (size, _) in files.items():
        if sizes.get(name) != size:
            return f"{name} {f'has {sizes[name]} of its {size} bytes' if name in sizes else 'is missing'}"
    if contents:
        sums = _checksums(folder, tuple(stamp for stamp in stamps if stamp[0] in files))
        return next((f"the bytes of {name} have changed" for name in files if sums[name] != files[name][1]), None)
    return None


def discard(folder: Path) -> None:
    """Take a cache, whose `lock_of` is held, out of the way by one rename, and delete it."""
    with tempfile.TemporaryDirectory(dir=folder.parent / BUILDING, prefix=f"{folder.name}.") as gone:
        folder.rename(Path(gone) / "gone")


def remove_leftovers_of(folder: Path) -> int:
    """Delete what killed builders of a cache, whose `lock_of` is held, left; returns the bytes freed."""
    freed = 0
    for path in (folder.parent / BUILDING).iterdir():
        if path.name.rpartition(".")[0] == folder.name and path.is_dir():
            freed += folder_size(path)
            shutil.rmtree(path)
    return freed


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    size = 0
    for path in folder.rglob("*"):
        # another process may remove what is being counted
        with suppress(FileNotFoundError):
            size += 0 if path.is_dir() else path.lstat().st_size
    return size


@contextmanager
def lock_of(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Be the only one who builds or removes a cache; False, and only without `wait`, where another process does."""
    path = folder.parent / BUILDING / f"{folder.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        mine = _flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not mine or is_at(path, lock):
            break
        os.close(lock)  # whoever held it has removed the file since
    try:
        yield mine
    finally:
        if mine:
            path.unlink()
        os.close(lock)


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Keep every process from beginning to use a cache; False where one uses it, or this user cannot write it."""
    try:
        # open for writing, since network file systems want that
        seal = os.open(folder / SEAL, os.O_RDWR)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        yield False
        return
    try:
        yield _flock(seal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(seal)


def whole_seal(folder: Path, build: Callable[[Path], None], verify: bool) -> int:
    """The locked seal of a cache, which is built where it is missing or damaged."""
    seal = use(folder, verify)
    if seal is not None:
        return seal
    with lock_of(folder):
        remove_leftovers_of(folder)
        # another process may have built it while this one waited
        seal = use(folder, verify)
        if seal is None:
            if folder.exists():
                warnings.warn(f"{folder}: {damage(folder, verify)}; it is removed and built again", stacklevel=3)
                discard(folder)
            _build(folder, build)
            seal = use(folder)
    return seal


def use(folder: Path, verify: bool = False) -> int | None:
    """The locked seal of a cache, which counts as used until it is closed; None where it is missing or damaged."""
    while True:
        try:
            seal = os.open(folder / SEAL, os.O_RDONLY)
        except FileNotFoundError:
            return None
        _flock(seal, fcntl.LOCK_SH)
        if is_at(folder / SEAL, seal):
            break
        os.close(seal)  # the cache was removed before the lock was there
    if damage(folder, verify) is not None:
        os.close(seal)
        return None
    if os.access(folder / SEAL, os.W_OK):  # what is another user's can be used, but not touched
        os.utime(folder / SEAL)
    return seal


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent / BUILDING, prefix=f"{folder.name}.") as unfinished:
        whole = Path(unfinished) / "whole"
        whole.mkdir()
        build(whole)
        stamps = _stamps(whole)
        sums = _checksums(whole, stamps)
        write_json(whole / SEAL, {name: {"bytes": size, "crc32": sums[name]} for name, size, *_ in stamps})
        with ThreadPoolExecutor() as pool:
            # after a power loss the name must not stand for files that were in memory only
            list(pool.map(to_disk, [*whole.rglob("*"), whole]))
        whole.rename(folder)
        to_disk(folder.parent)


def _sealed(folder: Path) -> dict[str, tuple[int, list[int]]] | None:
    """Size and checksums of each file when it was built; None where they cannot be read."""
    try:
        files = json.loads((folder / SEAL).read_bytes())
        return {name: (file["bytes"], file["crc32"]) for name, file in files.items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _stamps(folder: Path) -> tuple[Stamp, ...]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / SEAL)
    stats = ((p.relative_to(folder).as_posix(), p.stat()) for p in paths)
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats)


@lru_cache(maxsize=256)
def _checksums(folder: Path, stamps: tuple[Stamp, ...]) -> dict[str, list[int]]:
    """CRC-32 of each piece of each file, in threads: zlib releases the GIL. By stamp, so once per process."""
    pieces = [(name, start) for name, size, *_ in stamps for start in range(0, max(size, 1), _PIECE)]
    sums: dict[str, list[int]] = {name: [] for name, *_ in stamps}
    with ThreadPoolExecutor() as pool:
        for (name, _), crc in zip(pieces, pool.map(lambda p: _crc32(folder / p[0], p[1]), pieces), strict=True):
            sums[name].append(crc)
    return sums


def _crc32(path: Path, start: int) -> int:
    crc = 0
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        for _ in range(_PIECE // _BLOCK):
            crc = zlib.crc32(file.read(_BLOCK), crc)
    return crc


def _flock(descriptor: int, operation: int) -> bool:
    """Lock an open file; False where LOCK_NB forbids the waiting which that takes."""
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise DataError(
            f"{cache_folder()} lies on a file system without locks ({error.strerror}), where processes cannot wait "
            "for each other; set HARNESS_CACHE to a folder on a local disk"
        ) from error
    return True


def is_at(path: Path, descriptor: int) -> bool:
    """Whether a path still names the file that was opened."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
