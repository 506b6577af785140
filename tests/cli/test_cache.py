"""`harness cache`: list, clear."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

from harness.store import cache_folders
from harness.store.cache_folders import build_once

FRAMES, DESERT, FEATURES = "frames-v1-0123456789abcdef-val-32x48", "desert-v1-2-1-1-32x48-s0", "features-v1-a1b2"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder with frames of yesterday, a desert of last week and features in use, and a stranger's folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("HARNESS_CACHE", str(folder))
    for name, size, days in ((FRAMES, 2_000_000, 1), (DESERT, 500_000, 7), (FEATURES, 1000, 0)):
        build_once(folder / name, lambda f, size=size: (f / "x").write_bytes(bytes(size)))
        then = time.time() - days * 86400
        os.utime(folder / name / "harness-cache.json", (then, then))
    for name in (FRAMES, DESERT):
        os.close(cache_folders._in_use.pop(folder / name))  # as the end of the process that built them would
    (folder / "stranger").mkdir()
    return folder


def left(cache):
    return {p.name for p in cache.iterdir() if p.name not in {".building", "stranger"}}


def test_list_shows_what_each_cache_is_its_size_and_whether_it_is_used(harness, cache):
    said = harness("cache", "list")
    assert said.code == 0
    rows = [re.split("  +", line.strip()) for line in said.out.splitlines()[1:4]]
    assert [row[0] for row in rows] == [DESERT, FRAMES, FEATURES], "the longest unused first"
    assert rows[1][1] == "2.0 MB"
    assert [row[3] for row in rows] == ["no", "no", "yes"]
    assert "2.5 MB of at most" in said.out


def test_list_of_nothing_says_so(harness, tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "none"))
    assert harness("cache", "list").out == f"{tmp_path / 'none'} holds nothing\n"
    assert not (tmp_path / "none").exists()


def test_clear_removes_what_is_named_and_says_what_it_freed(harness, cache):
    said = harness("cache", "clear", FRAMES)
    assert said.code == 0 and f"removed {FRAMES} (2.0 MB)" in said.out and "2.0 MB freed in" in said.out
    assert left(cache) == {DESERT, FEATURES}


def test_clear_all_keeps_what_is_used_and_what_is_not_ours(harness, cache):
    said = harness("cache", "clear", "--all")
    assert said.code == 0 and f"kept {FEATURES}: in use" in said.out and "2.5 MB freed in" in said.out
    assert left(cache) == {FEATURES} and (cache / "stranger").is_dir()


def test_clear_removes_what_was_not_used_for_days(harness, cache):
    assert harness("cache", "clear", "--older-than", 8).out.startswith("0 bytes freed")
    assert harness("cache", "clear", "--older-than", 3).code == 0
    assert left(cache) == {FRAMES, FEATURES}
    assert harness("cache", "clear", FRAMES, "--older-than", 3).code == 0
    assert left(cache) == {FRAMES, FEATURES}


def test_clear_removes_what_a_killed_process_left(harness, cache):
    leftover = cache / ".building" / "frames-v1-x.abcd1234"
    (leftover / "whole").mkdir(parents=True)
    (leftover / "whole" / "images.npy").write_bytes(bytes(7000))
    said = harness("cache", "clear", "--older-than", 1000)
    assert "removed what killed processes left (7.0 kB)" in said.out and not leftover.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing was chosen; give names from `harness cache list`, --older-than DAYS, or --all"),
        (("--all", FRAMES), "--all removes everything"),
        (("--all", "--older-than", 3), "--all removes everything"),
        (("../frames",), "'../frames' is no cache in"),
        (("stranger",), "'stranger' is no cache in"),
        ((".building",), "'.building' is no cache in"),
        ((FRAMES[:-1],), f"did you mean '{FRAMES}'?"),
        ((FRAMES, "/"), "'/' is no cache in"),
    ],
)
def test_clear_refuses_what_is_no_cache_and_removes_nothing(harness, cache, words, message):
    said = harness("cache", "clear", *words)
    assert said.code == 2 and said.err.startswith("error: ") and message in said.err and said.out == ""
    assert left(cache) == {FRAMES, DESERT, FEATURES}


def test_a_bad_limit_is_one_message(harness, cache, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE_GB", "lots")
    said = harness("cache", "list")
    assert (said.code, said.out) == (2, "") and "HARNESS_CACHE_GB 'lots' is not a number" in said.err


def test_listing_and_clearing_load_neither_torch_nor_ray(cache):
    code = """
import sys
from harness.cli import app
for words in (["cache", "list"], ["cache", "clear", "--all"]):
    app(words, standalone_mode=False)
print("loaded:", *sys.modules.keys() & {"torch", "ray", "albumentations", "cv2"})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:" and left(cache) == {FEATURES}
