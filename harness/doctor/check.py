"""One line of the doctor."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Check(NamedTuple):
    """What was looked at, how it is (bad: something will not work), what was found, and what helps, if anything."""

    name: str
    state: Literal["ok", "warn", "bad"]
    found: str
    remedy: str = ""


def ok(name: str, found: str) -> Check:
    return Check(name, "ok", found)


def warn(name: str, found: str, remedy: str) -> Check:
    return Check(name, "warn", found, remedy)


def bad(name: str, found: str, remedy: str) -> Check:
    return Check(name, "bad", found, remedy)
