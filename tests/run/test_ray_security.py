"""Who can reach a local Ray: this machine's processes that know the token; started once for all of it."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from harness.run import Resources, cluster
from harness.run.cluster import close_token_file, connect, ray

ROOT = Path(cluster.__file__).parents[2]
TOKEN = Path.home() / ".ray" / "auth_token"

#: joins the cluster at argv[1] as anybody's script would
CLIENT = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(len(ray.nodes()), "node")
"""


@dataclass
class Local:
    address: str
    listening: set[str]


@pytest.fixture(scope="module")
def local() -> Iterator[Local]:
    connect(Resources())
    ours = {psutil.Process().pid, *(p.pid for p in psutil.Process().children(recursive=True))}
    connections = psutil.net_connections("inet")
    listening = {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN and c.pid in ours}
    yield Local(ray.get_runtime_context().gcs_address, listening)
    ray.shutdown()


def run_client(address: str, **variables: str) -> subprocess.CompletedProcess:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Ray asks twenty times, once a second
    variables = {"RAY_NUM_REDIS_GET_RETRIES": "2", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **variables}
    return subprocess.run(
        [sys.executable, "-c", CLIENT, address],
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_ray_listens_on_loopback_only(local):
    assert local.listening
    assert {ip.removeprefix("::ffff:") for ip in local.listening} == {"127.0.0.1"}


def test_a_client_with_the_token_is_let_in(local):
    assert run_client(local.address, RAY_AUTH_MODE="token").stdout.strip() == "1 node"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "InvalidAuthToken: Authentication token is missing or incorrect"),
        ({"RAY_AUTH_MODE": "disabled"}, "InvalidAuthToken: Authentication token is missing or incorrect"),
        (
            {"RAY_AUTH_MODE": "token"},
            "AuthenticationError: Token authentication is enabled but no authentication token",
        ),
        (
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64},
            "InvalidAuthToken: Authentication token is missing or incorrect",
        ),
    ],
    ids=["unset", "disabled", "without a token", "with another token"],
)
def test_a_client_of_another_home_is_refused(local, tmp_path, variables, said):
    refused = run_client(local.address, HOME=str(tmp_path), **variables)
    assert refused.returncode != 0
    assert "node" not in refused.stdout
    assert said in refused.stderr


def test_nobody_else_can_read_the_token(local):
    assert stat.S_IMODE(TOKEN.stat().st_mode) == 0o600


def test_a_token_file_that_ray_left_open_is_closed_and_a_missing_one_stays_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    close_token_file()
    token = tmp_path / ".ray" / "auth_token"
    assert not token.exists()
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    close_token_file()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text() == "secret"


def test_usage_statistics_are_off_here_and_in_the_processes_of_ray(local):
    assert not ray._common.usage.usage_lib.usage_stats_enabled()
    # the others have written their titles over what is to be read here
    alive = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    found = [process for process in alive if process.name() in ("raylet", "gcs_server")]
    assert len(found) == 2
    assert {process.environ()["RAY_USAGE_STATS_ENABLED"] for process in found} == {"0"}


#: os.environ["RAY_AUTH_MODE"] = "disabled", setdefault("RAY_AUTH_MODE", "disabled"), {"RAY_AUTH_MODE": "disabled"}
IN_PYTHON = r"""["']RAY_AUTH_MODE["']\]?\s*[,:=]\s*["']disabled["']"""
#: RAY_AUTH_MODE=disabled, RAY_AUTH_MODE: disabled, and Kubernetes' name and value
ELSEWHERE = r"""RAY_AUTH_MODE["']?\s*[:=,}]?\s*(value:)?\s*["']?disabled"""


def test_nothing_in_the_repository_turns_authentication_off():
    for file in ROOT.glob("harness/**/*.py"):
        assert not re.search(IN_PYTHON, file.read_text()), file
    for file in (*ROOT.glob("deploy/*"), ROOT / "Makefile"):
        assert not re.search(ELSEWHERE, file.read_text()), file


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (IN_PYTHON, 'os.environ["RAY_AUTH_MODE"] = "disabled"'),
        (IN_PYTHON, "os.environ.setdefault('RAY_AUTH_MODE', 'disabled')"),
        (ELSEWHERE, "export RAY_AUTH_MODE=disabled"),
        (ELSEWHERE, "- name: RAY_AUTH_MODE\n  value: disabled"),
    ],
)
def test_ways_to_turn_it_off_are_found(pattern, text):
    assert re.search(pattern, text)
