"""A reader sees the old file or the new one."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.store import BackgroundWriter, write_bytes, write_json, write_text


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_bytes(tmp_path / "b", b"\x00\xff")
    write_text(tmp_path / "t", "Größe\n")
    write_json(tmp_path / "j", {"a": [1, None]})
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert (tmp_path / "t").read_text(encoding="utf-8") == "Größe\n"
    assert json.loads((tmp_path / "j").read_text()) == {"a": [1, None]}


def test_a_file_is_replaced_and_nothing_else_stays_in_the_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "a long first text")
    write_text(tmp_path / "t", "short")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("t", "short")]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_the_old_file_stays_when_the_writer_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write_text(tmp_path / "t", "old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "t", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("t", "old")]
    monkeypatch.undo()
    write_text(tmp_path / "t", "newer")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("t", "newer")]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A disk on which a file can have so many bytes: the system refuses the rest, as where there is no room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_where_there_is_no_room_the_old_file_stays_and_the_new_one_takes_none(tmp_path: Path) -> None:
    write_bytes(tmp_path / "weights", b"old")
    with pytest.raises(OSError, match="File too large"), no_file_above(100_000):
        write_bytes(tmp_path / "weights", bytes(1_000_000))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("weights", b"old")]


def test_the_bytes_are_on_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    write_text(tmp_path / "t", "new")
    assert calls == ["fsync", "replace"]


def test_a_value_that_json_has_not_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "j", 1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "j", {"path": tmp_path})
    assert (tmp_path / "j").read_text() == "1\n"


def test_a_background_writer_keeps_the_order_and_ends_with_everything_on_the_disk(tmp_path: Path) -> None:
    with BackgroundWriter() as writer:
        for number in range(20):
            writer.write(tmp_path / "last", str(number).encode())
        writer.write(tmp_path / "other", b"x")
    assert (tmp_path / "last").read_bytes() == b"19"
    assert (tmp_path / "other").read_bytes() == b"x"


def test_what_a_background_writer_could_not_write_comes_out_at_the_latest_at_its_end(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        with BackgroundWriter() as writer:
            writer.write(tmp_path / "missing" / "file", b"x")


def test_a_background_writer_waits_when_it_is_asked_to(tmp_path: Path) -> None:
    with BackgroundWriter() as writer:
        writer.write(tmp_path / "file", b"x")
        writer.wait()
        assert (tmp_path / "file").read_bytes() == b"x"
