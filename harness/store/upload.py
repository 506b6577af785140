"""Copies of a study where they outlive this machine: a bucket, or any file system that pyarrow or fsspec opens by URI.

Records, settings, report and the best trial's weights go to URI/STUDY, in the study's own arrangement. Files that were
sent and have not changed are not sent again.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import fsspec
import pyarrow
from pyarrow import fs

from harness.config import Trial
from harness.errors import StudyError
from harness.store.folders import StudyFolder
from harness.store.record import Record
from harness.store.rows import EpochRow, TrialRow

_log = logging.getLogger(__name__)
#: what pyarrow, and fsspec's file systems, raise where a place is wrong, out of reach or closed to us
_REFUSED = (OSError, pyarrow.ArrowException, ValueError, ImportError)


def check_upload(uri: str) -> None:
    """Write and remove an empty file there, to know before a study starts that its copies will find a place.

    Raises:
        StudyError: the URI is none, holds a password, or nothing can be written there.
    """
    parts = urlsplit(uri)
    if parts.password is not None:
        raise StudyError(
            "--upload: the URI holds a password, which the study's records would keep; leave it out and put it into "
            "the environment (AWS_SECRET_ACCESS_KEY and the like)"
        )
    if not parts.scheme:
        raise StudyError(
            f"--upload {uri} is no URI; write s3://BUCKET/FOLDER, gs://… or {Path(uri).absolute().as_uri()}"
        )
    try:
        system, root = _open(uri)
        system.create_dir(root, recursive=True)
        probe = f"{root}/.harness-upload"
        system.open_output_stream(probe).close()
        system.delete_file(probe)
    except _REFUSED as error:
        raise StudyError(
            f"--upload {uri}: nothing can be written there ({_first_line(error)}); check its name and this machine's "
            "rights, or leave --upload out and copy the study's folder afterwards"
        ) from error


class Upload:
    """A study's copy at a URI, brought up to date beside the study; without a URI, nothing.

    As a context, it ends when the copy is complete. What fails on the way is tried again then.
    """

    def __init__(self, folder: StudyFolder, uri: str | None) -> None:
        self.folder, self.uri = folder, uri
        self.sent: dict[Path, tuple[int, int]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="upload")
        self._next: Future[None] = Future()

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        # who stops a study at once does not wait for a network
        in_order = kind is None or issubclass(kind, Exception)
        self._next.cancel()
        self._thread.shutdown(wait=in_order)
        if in_order:
            self.finish(already_failing=kind is not None)

    def started(self, trial: Trial) -> None:
        """Nothing: a trial that starts has nothing to keep yet."""

    def epoch(self, row: EpochRow) -> None:
        """Nothing: an epoch's row travels with its trial."""

    def ended(self, trial_id: str, row: TrialRow | None) -> None:
        """A trial ended, or (no row) paused or was interrupted."""
        if row is not None:
            self.soon()

    def soon(self) -> None:
        """Bring the copy up to date, in a thread; asked again while that waits for its turn, once is enough."""
        if self.uri is not None:
            self._next.cancel()
            self._next = self._thread.submit(self.now)

    def now(self) -> None:
        """Bring the copy up to date."""
        if self.uri is not None:
            self._send([*records_of(self.folder), *weights_of(self.folder), *reports_of(self.folder)])

    def _send(self, files: list[Path]) -> None:
        system, root = _open(self.uri)
        top = _outermost(self.folder.path).parent
        for file in files:
            stamp = _stamp(file)
            if self.sent.get(file) != stamp:
                _copy(file, system, f"{root}/{file.relative_to(top).as_posix()}")
                self.sent[file] = stamp

    def finish(self, already_failing: bool = False) -> None:
        """Bring the copy up to date for the last time.

        Raises:
            StudyError: it cannot be; with `already_failing` that is only logged.
        """
        try:
            self.now()
        except _REFUSED as error:
            message = (
                f"the study is whole in {self.folder.path}, but its copy at {self.uri} is not ({_first_line(error)}); "
                "give the same command with --resume to send the rest"
            )
            if not already_failing:
                raise StudyError(message) from error
            _log.error(message)


def upload_reports(folder: StudyFolder, uri: str) -> None:
    """Send what was written about a study after its end.

    Raises:
        StudyError: it cannot be sent.
    """
    with Upload(folder, uri) as copy:
        # all else is there: the weights need not travel again
        copy.sent = {path: _stamp(path) for path in (*records_of(folder), *weights_of(folder))}


def records_of(folder: StudyFolder) -> list[Path]:
    """Settings, journals and the best Experiment of a study: what every table is made of."""
    journals = (folder.trials.path, folder.epochs.path)
    return [path for path in (folder.settings, folder.provenance, folder.best, *journals) if path.is_file()]


def weights_of(folder: StudyFolder) -> list[Path]:
    """The best trial's Experiment, weights and confusion matrices; nothing where no trial has a score."""
    ranking = Record(folder).ranking()
    if not ranking:
        return []
    run = folder.run(ranking[0].trial)
    return [path for path in (run.experiment, run.best, run.confusion) if path.is_file()]


def reports_of(folder: StudyFolder) -> list[Path]:
    """The study's page, tables and plots, as far as they are written."""
    found = (*folder.path.glob("report.html"), *folder.path.glob("report/**/*"))
    return sorted(path for path in found if path.is_file())


def _outermost(study: Path) -> Path:
    """The study that a confirmation belongs to, or the study itself."""
    above = [path for path in study.parents[:2] if (path / "study.yaml").exists()]
    return above[-1] if above else study


def _stamp(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_size, state.st_mtime_ns


def _open(uri: str) -> tuple[fs.FileSystem, str]:
    """pyarrow's own file system for a URI, or fsspec's, and the path there."""
    try:
        system, path = fs.FileSystem.from_uri(uri)
    except pyarrow.ArrowInvalid:
        other, path = fsspec.core.url_to_fs(uri)
        system = fs.PyFileSystem(fs.FSSpecHandler(other))
    return system, path.rstrip("/")


def _copy(file: Path, system: fs.FileSystem, destination: str) -> None:
    system.create_dir(destination.rpartition("/")[0], recursive=True)
    fs.copy_files(
        str(file.resolve()), destination, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
