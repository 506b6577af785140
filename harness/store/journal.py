"""Append-only journals: one JSON record a line, on disk before `append` returns."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from harness.config import Section
from harness.errors import StudyError
from harness.store.files import naming_what_fails, to_disk

R = TypeVar("R", bound=Section)


class Journal(Generic[R]):
    """The rows of one kind in one file, in the order in which they were written.

    A last line that a crash cut short is not a row: reading leaves it out, appending cuts it off.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path, self.kind = path, kind

    def append(self, row: R) -> None:
        """Add one row, durably.

        Raises:
            StorageError: it cannot be written.
        """
        with naming_what_fails(self.path.parent), open(self.path, "ab+") as file:
            _cut_torn_line(file)
            line = row.model_dump_json().encode() + b"\n"
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            if file.tell() == len(line):
                to_disk(self.path.parent)

    def read(self) -> list[R]:
        """All rows; none where the file does not exist.

        Raises:
            StudyError: a line, other than a torn last one, is not a row of this kind, or the file cannot be read.
        """
        try:
            whole_lines = self.path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StudyError(f"{self.path}: cannot be read ({error.strerror}); mend that, or restore it") from error
        return [self._parse(line, number) for number, line in enumerate(whole_lines, 1)]

    def _parse(self, line: bytes, number: int) -> R:
        try:
            return self.kind.model_validate_json(line)
        except ValidationError as error:
            raise StudyError(
                f"{self.path}:{number}: not a {self.kind.__name__}: {error.errors()[0]['msg']}; "
                "the file was changed by hand or written by another version: restore it or start a new study"
            ) from error


def _cut_torn_line(file) -> None:  # noqa: ANN001  (a binary file)
    """Drop what follows the last newline: the driver that wrote it was killed before the line was whole."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(0)
    keep = file.read().rfind(b"\n") + 1 if _last_byte(file, size) != b"\n" else size
    file.truncate(keep)


def _last_byte(file, size: int) -> bytes:  # noqa: ANN001
    file.seek(size - 1)
    last = file.read(1)
    file.seek(0)
    return last
