"""Asking a library in a process of its own: a broken one may raise, crash, or never answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any, NamedTuple

#: seconds; importing torch from a cold network disk takes a minute
TIMEOUT = 180
#: before the one line of JSON among whatever libraries print
MARK = "harness-doctor:"


class Answer(NamedTuple):
    """What a library said, or what went wrong in one line."""

    values: dict[str, Any]
    error: str | None = None


def ask(module: str, *words: str, timeout: float = TIMEOUT) -> Answer:
    """Run `python -m MODULE WORDS...` and take the values that it `tell`s."""
    offline = {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0", "NO_ALBUMENTATIONS_UPDATE": "1"}
    command = [sys.executable, "-m", module, *words]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            env=os.environ | offline | {"PYTHONIOENCODING": "utf-8"},
        )
    except subprocess.TimeoutExpired:
        return Answer({}, f"no answer within {timeout:.0f} s")
    told = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode == 0 and told:
        return Answer(json.loads(told[-1]))
    return Answer({}, _what_went_wrong(done.returncode, done.stderr))


def tell(values: dict[str, Any]) -> None:
    """Answer, from within the process that was asked."""
    print(MARK + json.dumps(values), flush=True)


def _what_went_wrong(code: int, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else "nothing was said"
    return f"its process died of {signal.Signals(-code).name}: {last}" if code < 0 else last
