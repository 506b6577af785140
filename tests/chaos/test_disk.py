"""A small disk is full without harm to any other, and goes without its files."""

from __future__ import annotations

import errno
import os

import psutil
import pytest

from harness.chaos import disk

MB = 2**20


@pytest.fixture
def can_mount(tmp_path) -> None:
    if (why := disk.why_not(tmp_path, MB)) is not None:
        pytest.skip(f"no disk can be mounted: {why}")


def test_a_filled_disk_has_no_byte_left_and_room_again_without_its_ballast(tmp_path, can_mount):
    elsewhere = os.statvfs(tmp_path).f_blocks
    with disk.small_disk(tmp_path / "results", MB):
        assert os.statvfs(tmp_path / "results").f_blocks != elsewhere
        disk.fill(tmp_path / "results" / "ballast")
        with pytest.raises(OSError) as error:
            (tmp_path / "results" / "more").write_bytes(b"1")
        assert error.value.errno == errno.ENOSPC
        (tmp_path / "results" / "ballast").unlink()
        (tmp_path / "results" / "more").write_bytes(bytes(MB // 2))


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_what_was_written_stays_when_the_disk_goes_however_the_search_ended(error, tmp_path, can_mount):
    path = tmp_path / "results"
    try:
        with disk.small_disk(path, MB):
            assert os.path.ismount(path)
            (path / "study").mkdir()
            (path / "study" / "trials.jsonl").write_text("row\n")
            if error is not None:
                raise error
    except (KeyboardInterrupt, ValueError) as raised:
        assert isinstance(raised, error)
    assert not os.path.ismount(path) and [one.name for one in tmp_path.iterdir()] == ["results"]
    assert (path / "study" / "trials.jsonl").read_text() == "row\n"
    assert not [one for one in psutil.disk_partitions(all=True) if one.mountpoint == str(path)]


def test_a_folder_on_a_disk_that_others_use_is_never_filled(tmp_path):
    with pytest.raises(ValueError, match=f"^{tmp_path} lies on a disk that others use$"):
        disk.fill(tmp_path / "ballast")
    assert list(tmp_path.iterdir()) == []


def test_who_is_not_root_or_may_not_mount_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(disk.sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(fake_mount(tmp_path, exit_code=32)))
    assert disk.why_not(tmp_path, MB) == "needs root on Linux"
    assert not (tmp_path / "probe").exists()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(disk, "_can_mount", lambda probe: pytest.fail("tried to mount"))
    assert disk.why_not(tmp_path, MB) == "needs root on Linux"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(disk.sys, "platform", "darwin")
    assert disk.why_not(tmp_path, MB) == "needs root on Linux"


def fake_mount(tmp_path, exit_code: int):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "mount").write_text(f"#!/bin/sh\nexit {exit_code}\n")
    (folder / "mount").chmod(0o755)
    return folder


def test_a_disk_that_would_take_more_than_a_quarter_of_the_free_memory_is_not_mounted(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(disk.sys, "platform", "linux")
    monkeypatch.setattr(disk, "_can_mount", lambda probe: True)
    assert disk.why_not(tmp_path, MB) is None
    available = psutil.virtual_memory().total
    assert disk.why_not(tmp_path, available) == f"needs {4 * available / MB:,.0f} MB of free memory"


def test_a_disk_has_room_for_four_times_what_the_search_leaves(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "weights").write_bytes(bytes(3 * MB))
    (tmp_path / "trials.jsonl").write_bytes(bytes(MB))
    assert disk.size_for(tmp_path) == (64 + 4 * 4) * MB
