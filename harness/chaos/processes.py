"""Processes of the search that is disturbed, found below those that we started: nobody else's are ever struck."""

from __future__ import annotations

import time

import psutil

_LOOK = 0.05


def below(pid: int, name: str = "") -> list[psutil.Process]:
    """Living descendants of a process whose command or name begins so."""
    try:
        family = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [one for one in family if is_alive(one) and any(word.startswith(name) for word in _names(one))]


def workers_below(pid: int) -> list[psutil.Process]:
    """Ray's processes that train a trial."""
    return below(pid, "ray::TrialActor")


def is_alive(process: psutil.Process) -> bool:
    """Whether a process can do anything still: what waits for its parent to take note of its end cannot."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_all(processes: list[psutil.Process], patience: float) -> None:
    """Wait so many seconds for processes to end by themselves, and kill those that do not."""
    until = time.monotonic() + patience
    while any(map(is_alive, processes)) and time.monotonic() < until:
        time.sleep(_LOOK)
    for process in filter(is_alive, processes):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _names(process: psutil.Process) -> tuple[str, ...]:
    try:
        return " ".join(process.cmdline()), process.name()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ()
