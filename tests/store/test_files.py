"""A reader sees the old file or the new one."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.errors import DiskFull, StorageError
from harness.store import BackgroundWriter, is_full_disk, write_bytes, write_json, write_text


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
    with pytest.raises(StorageError, match="File too large"), no_file_above(100_000):
        write_bytes(tmp_path / "weights", bytes(1_000_000))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("weights", b"old")]


def test_the_bytes_are_on_disk_before_the_name_changes_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    write_text(tmp_path / "t", "new")
    assert calls == ["fsync", "replace", "fsync"]


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
    with pytest.raises(StorageError, match="missing cannot be written"):
        with BackgroundWriter() as writer:
            writer.write(tmp_path / "missing" / "file", b"x")


def test_nothing_is_written_after_what_a_background_writer_could_not_write(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing cannot be written"):
        with BackgroundWriter() as writer:
            writer.write(tmp_path / "first", b"x")
            writer.write(tmp_path / "missing" / "file", b"x")
            writer.write(tmp_path / "third", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_a_file_that_is_replaced_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    for text in (b"one", b"two", b"three"):
        write_bytes(tmp_path / "last", text, before=tmp_path / "previous")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"last": b"three", "previous": b"two"}


def test_a_file_that_cannot_be_replaced_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (b"one", b"two"):
        write_bytes(tmp_path / "last", text, before=tmp_path / "previous")
    fill(monkeypatch)
    with pytest.raises(DiskFull):
        write_bytes(tmp_path / "last", b"three", before=tmp_path / "previous")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"last": b"two", "previous": b"one"}


def test_a_file_in_parts_is_the_parts_in_a_row(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"ab", memoryview(b"cd"), b"")
    assert (tmp_path / "file").read_bytes() == b"abcd"


def fill(monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_with_the_folder_what_is_free_and_what_to_do(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(monkeypatch, number)
    free = rf"\({os.strerror(number)}; [\d,]+\.\d MB free\): make room there, then go on with .+ --resume"
    with pytest.raises(DiskFull, match=f"{tmp_path} has no room for another file {free}") as error:
        write_text(tmp_path / "t", "new")
    assert error.value.exit_code == 3 and is_full_disk(error.value) and is_full_disk(error.value.__cause__)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE])
def test_a_disk_that_refuses_is_said_with_the_folder_what_the_system_says_and_what_to_do(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(monkeypatch, number)
    said = rf"{tmp_path} cannot be written \({os.strerror(number)}\): mend that, then go on with .+ --resume"
    with pytest.raises(StorageError, match=said) as error:
        write_text(tmp_path / "t", "new")
    assert error.value.exit_code == 3 and not is_full_disk(error.value) and list(tmp_path.iterdir()) == []


def test_a_background_writer_waits_when_it_is_asked_to(tmp_path: Path) -> None:
    with BackgroundWriter() as writer:
        writer.write(tmp_path / "file", b"x")
        writer.wait()
        assert (tmp_path / "file").read_bytes() == b"x"
