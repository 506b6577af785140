"""Folders that are built once: by one of many processes, whole or not at all, checked, evicted when unused."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.errors import ConfigError, DataError
from harness.store import cache_folders
from harness.store.cache_arrays import map_built, map_once
from harness.store.cache_folders import build_once, damage, lock_of
from harness.store.cache_room import cache_entries, make_room, remove_cache, remove_leftovers, size_limit

#: asks for a cache, then waits for a line; the build says in a file that it ran, and takes a while
ASK = """
import sys, time
from pathlib import Path
from harness.store.cache_folders import build_once
folder, count, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
def build(unfinished):
    (unfinished / "half").write_bytes(b"x" * 1000)
    with open(count, "a") as file:
        file.write("built\\n")
    time.sleep(seconds)
    (unfinished / "rest").write_bytes(b"y" * 1000)
build_once(folder, build)
print("open", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a process that asks for a folder, whose builds take `seconds`; it uses the folder until it is ended."""
    started = []

    def start(folder: Path, seconds: float = 0.0) -> subprocess.Popen:
        words = [sys.executable, "-c", ASK, str(folder), str(tmp_path / "count"), str(seconds)]
        started.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited for a minute"
        time.sleep(0.01)


def end(process: subprocess.Popen) -> None:
    out, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0


def made(cache: Path, name: str, size: int = 1000, age: float = 0.0) -> Path:
    """A cache that no process uses, last used `age` seconds ago."""
    folder = build_once(cache / name, lambda f: (f / "x").write_bytes(bytes(size)))
    os.close(cache_folders._in_use.pop(folder))  # as the end of this process would
    then = time.time() - age
    os.utime(folder / "harness-cache.json", (then, then))
    return folder


def names(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.iterdir() if p.name != ".building")


def test_many_processes_that_ask_at_once_build_once_and_all_get_it(cache, ask, tmp_path):
    processes = [ask(cache / "target", 0.5) for _ in range(6)]
    assert [p.stdout.readline() for p in processes] == ["open\n"] * 6
    assert (tmp_path / "count").read_text() == "built\n"
    assert (cache / "target" / "rest").is_file() and list((cache / ".building").iterdir()) == []


def test_a_killed_builder_leaves_nothing_valid_and_the_next_builds_anew(cache, ask, tmp_path):
    killed = ask(cache / "target", 600)
    wait_until((tmp_path / "count").exists)
    waiting = ask(cache / "target")
    killed.send_signal(signal.SIGKILL)
    assert waiting.stdout.readline() == "open\n"
    assert (tmp_path / "count").read_text() == "built\n" * 2
    assert (cache / "target" / "rest").is_file() and names(cache) == ["target"]
    assert list((cache / ".building").iterdir()) == [], "the killed one's half is removed"


def test_what_a_killed_builder_left_is_cleared_and_what_a_live_one_builds_is_not(cache, ask, tmp_path):
    killed = ask(cache / "killed", 600)
    wait_until((tmp_path / "count").exists)
    killed.kill()
    killed.wait()
    (tmp_path / "count").unlink()
    live = ask(cache / "killed.too", 1.5)  # its name begins like the killed one's
    wait_until((tmp_path / "count").exists)
    assert remove_leftovers() == 1000
    assert live.stdout.readline() == "open\n" and names(cache) == ["killed.too"]
    assert list((cache / ".building").iterdir()) == []


def test_a_build_that_fails_leaves_nothing_and_may_be_repeated(tmp_path):
    def fail(folder):
        (folder / "half").write_text("")
        raise DataError("stopped")

    with pytest.raises(DataError, match="stopped"):
        build_once(tmp_path / "made" / "target", fail)
    assert names(tmp_path / "made") == [] and list((tmp_path / "made" / ".building").iterdir()) == []
    assert build_once(tmp_path / "made" / "target", lambda f: (f / "x").write_text("")).is_dir()


def test_a_build_may_ask_for_another_cache(cache):
    def outer(folder):
        inner = build_once(cache / "inner", lambda f: (f / "x").write_text("inner"))
        shutil.copy(inner / "x", folder)

    assert (build_once(cache / "outer", outer) / "x").read_text() == "inner"


def test_every_file_is_verified_in_folders_too(cache):
    def build(folder):
        (folder / "sub").mkdir()
        (folder / "sub" / "large").write_bytes(np.random.default_rng(0).bytes(40 << 20))
        (folder / "empty").write_bytes(b"")

    folder = build_once(cache / "target", build)
    assert damage(folder, contents=True) is None
    for position in (0, (16 << 20) - 1, 16 << 20, (40 << 20) - 1):
        with open(folder / "sub" / "large", "r+b") as file:
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ 64]))
            file.flush()
            assert damage(folder, contents=True) == "the bytes of sub/large have changed"
            file.seek(position)
            file.write(bytes([byte]))
        assert damage(folder, contents=True) is None


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: (f / "x").unlink(), "x is missing"),
        (lambda f: (f / "x").write_bytes(b"123456"), "x has 6 of its 5 bytes"),
        (lambda f: (f / "harness-cache.json").unlink(), r"harness-cache\.json is missing or damaged"),
        (lambda f: (f / "harness-cache.json").write_text('{"x": {"bytes":'), r"harness-cache\.json is missing or"),
        (lambda f: (f / "harness-cache.json").write_text('["x"]'), r"harness-cache\.json is missing or damaged"),
    ],
)
def test_a_cache_that_is_not_whole_is_built_again_at_opening(cache, harm, said):
    def build(folder):
        (folder / "x").write_bytes(b"12345")

    folder = build_once(cache / "target", build)
    harm(folder)
    with pytest.warns(UserWarning, match=f"{re.escape(str(folder))}: {said}.*; it is removed and built again"):
        build_once(folder, build)
    assert (folder / "x").read_bytes() == b"12345" and damage(folder, contents=True) is None


def test_a_file_system_without_locks_is_refused(cache, monkeypatch):
    def flock(_descriptor, _operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(DataError, match=r"file system without locks \(No locks available\).*set HARNESS_CACHE"):
        build_once(cache / "target", lambda f: None)


def test_opening_makes_a_cache_the_latest_used(cache):
    old, new = made(cache, "old", age=200), made(cache, "new", age=100)
    assert [e.folder for e in cache_entries()] == [old, new]
    build_once(old, lambda f: None)
    assert [e.folder for e in cache_entries()] == [new, old]


def test_the_longest_unused_go_first_and_no_more_than_needed(cache, monkeypatch):
    for name, age in (("b", 300), ("a", 200), ("c", 100)):
        made(cache, name, 1_000_000, age)
    held = sum(e.size for e in cache_entries())
    monkeypatch.setenv("HARNESS_CACHE_GB", str((held + 500_000) / 1e9))
    make_room(400_000, "these", "ask for less")
    assert names(cache) == ["a", "b", "c"]
    make_room(600_000, "these", "ask for less")
    assert names(cache) == ["a", "c"]
    make_room(2_000_000, "these", "ask for less")
    assert names(cache) == ["c"]


def test_room_is_made_on_a_full_disk_as_well(cache, monkeypatch):
    made(cache, "a", 1_000_000)
    usage = shutil.disk_usage(cache)
    free = {True: 10, False: 1_000_010}
    monkeypatch.setattr(shutil, "disk_usage", lambda _f: usage._replace(free=free[(cache / "a").exists()]))
    make_room(500_000, "these", "ask for less")
    assert names(cache) == []


def test_a_cache_in_use_stays_and_nothing_is_removed_in_vain(cache, monkeypatch, ask):
    user = ask(cache / "used")
    assert user.stdout.readline() == "open\n"
    made(cache, "idle", 1_000_000)
    assert {e.folder.name: e.in_use for e in cache_entries()} == {"used": True, "idle": False}
    monkeypatch.setenv("HARNESS_CACHE_GB", "0.0011")
    with pytest.raises(
        DataError, match=r"these need 0\.0 GB .* the limit is 0\.0 GB; set HARNESS_CACHE_GB to 1 or more"
    ):
        make_room(1_100_000, "these", "ask for less")
    assert names(cache) == ["idle", "used"]
    make_room(1_000_000, "these", "ask for less")
    assert names(cache) == ["used"] and not remove_cache(cache / "used")
    end(user)
    assert [e.in_use for e in cache_entries()] == [False]
    assert remove_cache(cache / "used") and names(cache) == []


def test_a_cache_that_is_being_built_is_not_removed(cache):
    made(cache, "target")
    with lock_of(cache / "target"):
        assert not remove_cache(cache / "target")
    assert remove_cache(cache / "target")


def test_the_limit_is_half_of_the_disk_or_what_the_environment_says(cache, monkeypatch):
    cache.mkdir()
    assert size_limit() == shutil.disk_usage(cache).total // 2
    monkeypatch.setenv("HARNESS_CACHE_GB", "2.5")
    assert size_limit() == 2_500_000_000


@pytest.mark.parametrize("text", ["much", "0", "-3", "nan", "inf"])
def test_a_limit_that_is_no_number_of_gigabytes_is_refused(text, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE_GB", text)
    with pytest.raises(
        ConfigError, match=rf"HARNESS_CACHE_GB '{text}' is not a number of gigabytes above 0; set it to"
    ):
        size_limit()


def test_only_what_was_built_here_is_a_cache(cache, tmp_path):
    made(cache, "mine")
    (cache / "photographs").mkdir()
    (cache / "notes.txt").write_text("")
    (cache / "link").symlink_to(cache / "mine")
    assert [e.folder.name for e in cache_entries()] == ["mine"]


def test_the_arrays_of_a_cache_keep_it_in_use_for_as_long_as_a_part_of_one_lives(cache):
    def build(folder):
        np.save(folder / "a.npy", np.arange(6))
        np.save(folder / "b.npy", np.zeros(2))

    def used() -> bool:
        return cache_entries()[0].in_use

    arrays = map_once(cache / "target", build)
    again = map_built(cache / "target")
    assert arrays.keys() == again.keys() == {"a", "b"} and used()
    part = np.asarray(arrays["a"][2:][1:])
    del arrays, again
    assert used() and part.tolist() == [3, 4, 5]
    del part
    assert not used() and remove_cache(cache / "target")
    assert map_built(cache / "target") is None
