"""What a study was asked for at the last start of its driver, as its provenance.json says it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from harness.errors import StudyError
from harness.run.study import Resources
from harness.store import StudyFolder


@dataclass(frozen=True)
class Limits:
    """The budgets of one start; none: no limit."""

    time_budget_s: float | None = None
    compute_hours: float | None = None


@dataclass(frozen=True)
class Session:
    """One start of a study's driver."""

    resources: Resources = field(default_factory=Resources)
    asked: Limits = field(default_factory=Limits)
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Provenance:
    sessions: tuple[Session, ...] = ()


def last_session(folder: StudyFolder) -> Session:
    """The last start; the usual where the study has no provenance.

    Raises:
        StudyError: provenance.json is damaged.
    """
    if not folder.provenance.exists():
        return Session()
    try:
        sessions = TypeAdapter(_Provenance).validate_json(folder.provenance.read_bytes()).sessions
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise StudyError(f"{folder.provenance}: damaged ({why}); restore it, or remove it") from error
    return sessions[-1] if sessions else Session()
