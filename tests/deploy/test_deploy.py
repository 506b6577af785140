"""The files in deploy/: what can be known of them without a container engine, a cloud or a network."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from typer.main import get_command

from harness.cli import app
from harness.config import Space, read_section

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CLUSTERS = ["aws.yaml", "local.yaml"]
PROJECT = (ROOT / "pyproject.toml").read_text()
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE).group(1)


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())


def instructions() -> list[tuple[str, str]]:
    """A Dockerfile's instructions, each with what follows it in one line."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def of_kind(kind: str) -> list[str]:
    return [rest for name, rest in instructions() if name == kind]


#: what of ray.io/v1 these files use, written by hand from KubeRay's reference: no network, no CRD
CONTAINER = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "image", "resources", "volumeMounts"],
    "properties": {
        "name": {"type": "string"},
        "image": {"type": "string"},
        "ports": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["containerPort", "name"],
                "properties": {"containerPort": {"type": "integer"}, "name": {"type": "string", "maxLength": 15}},
            },
        },
        "resources": {
            "type": "object",
            "additionalProperties": False,
            "required": ["requests", "limits"],
            "properties": {
                kind: {
                    "type": "object",
                    "additionalProperties": {"type": "string", "pattern": r"^\d+(\.\d+)?(m|Mi|Gi)?$"},
                }
                for kind in ("requests", "limits")
            },
        },
        "volumeMounts": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "mountPath"],
                "properties": {"name": {"type": "string"}, "mountPath": {"type": "string", "pattern": "^/"}},
            },
        },
    },
}
VOLUME = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "minProperties": 2,
    "maxProperties": 2,
    "properties": {
        "name": {"type": "string"},
        "persistentVolumeClaim": {
            "type": "object",
            "additionalProperties": False,
            "required": ["claimName"],
            "properties": {"claimName": {"type": "string"}},
        },
        "emptyDir": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"medium": {"const": "Memory"}, "sizeLimit": {"type": "string", "pattern": r"^\d+Gi$"}},
        },
    },
}
POD = {
    "type": "object",
    "additionalProperties": False,
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["containers", "volumes", "securityContext"],
            "properties": {
                "containers": {"type": "array", "minItems": 1, "items": CONTAINER},
                "volumes": {"type": "array", "items": VOLUME},
                "securityContext": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "runAsNonRoot": {"const": True},
                        "runAsUser": {"type": "integer", "minimum": 1},
                        "fsGroup": {"type": "integer", "minimum": 1},
                    },
                },
                "tolerations": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["key", "operator", "effect"],
                        "properties": {
                            "key": {"type": "string"},
                            "operator": {"enum": ["Exists", "Equal"]},
                            "effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
                        },
                    },
                },
            },
        }
    },
}
PARAMETERS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}
RAYJOB = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            # KubeRay makes the cluster's and the pods' names from it
            "properties": {"name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47}},
        },
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["entrypoint", "rayClusterSpec"],
            "properties": {
                "entrypoint": {"type": "string"},
                "backoffLimit": COUNT,
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": COUNT,
                "rayClusterSpec": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"],
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "authOptions": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["mode"],
                            "properties": {"mode": {"enum": ["disabled", "token"]}, "secretName": {"type": "string"}},
                        },
                        "headGroupSpec": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["rayStartParams", "template"],
                            "properties": {"rayStartParams": PARAMETERS, "template": POD},
                        },
                        "workerGroupSpecs": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["groupName", "replicas", "minReplicas", "maxReplicas", "template"],
                                "properties": {
                                    "groupName": {"type": "string"},
                                    "replicas": COUNT,
                                    "minReplicas": COUNT,
                                    "maxReplicas": COUNT,
                                    "rayStartParams": PARAMETERS,
                                    "template": POD,
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def check_as_ray_up(config: dict[str, Any]) -> None:
    """What `ray up` does with a file before it starts anything."""
    # not above: harness.run sets what ray reads when it is imported
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


@pytest.mark.parametrize("name", CLUSTERS)
def test_rays_own_schema_takes_a_cluster(name):
    check_as_ray_up(load(name))


@pytest.mark.parametrize("name", CLUSTERS)
def test_rays_own_schema_would_refuse_a_misspelt_key(name):
    with pytest.raises(jsonschema.ValidationError, match="'idle_timeout' was unexpected"):
        check_as_ray_up({**load(name), "idle_timeout": 10})


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_clusters_nodes_share_token_data_and_results_and_no_cache(name):
    config = load(name)
    options = [option.partition("=")[2] for option in config["docker"]["run_options"]]
    assert "RAY_AUTH_MODE=token" in options
    assert "/shared:/shared" in options and "/mnt/cache:/cache" in options
    assert config["file_mounts"] == {f"{home()}/.ray/auth_token": "~/.ray/auth_token"}
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert commands[0] == "ray stop" and "ray start" in commands[1]


def test_the_workers_of_aws_are_there_before_a_search_asks_for_them():
    types = load("aws.yaml")["available_node_types"]
    assert types[load("aws.yaml")["head_node_type"]]["resources"]["CPU"] == 0
    assert types["gpu"]["min_workers"] == load("aws.yaml")["max_workers"] > 0


def test_the_rayjob_has_the_form_that_kuberay_takes():
    jsonschema.validate(load("rayjob.yaml"), RAYJOB)


def test_the_rayjobs_nodes_share_token_data_and_results_and_no_cache():
    cluster = load("rayjob.yaml")["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "harness-ray-token"}
    assert "harness-ray-token --from-literal=auth_token=" in (DEPLOY / "README.md").read_text()
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        at = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert "persistentVolumeClaim" in at["/shared"]
        assert "emptyDir" in at["/cache"] and "emptyDir" in at["/dev/shm"]
        assert pod["securityContext"]["runAsUser"] == uid()


def test_each_gpu_worker_asks_for_what_its_trials_take():
    spec = load("rayjob.yaml")["spec"]
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    options = dict(pairwise(shlex.split(spec["entrypoint"])))
    trials = int(limits["nvidia.com/gpu"]) / float(options["--gpus-per-trial"])
    assert trials * float(options["--cpus-per-trial"]) <= int(limits["cpu"])
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_every_node_of_every_file_has_the_same_image():
    images = set(re.findall(r"\S+/harness:\S+", "".join(path.read_text() for path in DEPLOY.iterdir())))
    assert {image.rstrip("`") for image in images} == {f"REGISTRY/harness:{version()}"}


def test_the_versions_of_ray_and_python_are_the_repositorys():
    assert load("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == RAY
    (image,) = of_kind("FROM")
    python = Version(re.fullmatch(r"python:([\d.]+)-slim", image).group(1))
    assert python in SpecifierSet(re.search(r'requires-python = "(.+)"', PROJECT).group(1))


def commands_in(path: Path) -> list[list[str]]:
    """Every `harness …` of a file, with its continuation lines, in words."""
    text = re.sub(r"\n#\s{6,}", " ", path.read_text())
    if path.suffix == ".yaml" and "entrypoint" in text:
        text = yaml.safe_load(text)["spec"]["entrypoint"]
    return [
        shlex.split(found.strip('"'))
        for found in re.findall(r'(?<![\w/-])harness (?:search|train|ablate)[^\n"]*', text)
    ]


COMMANDS = [(path.name, words) for path in sorted(DEPLOY.iterdir()) for words in commands_in(path)]


def test_the_rayjob_both_clusters_and_the_readme_start_a_search():
    assert [name for name, _ in COMMANDS] == ["README.md", "aws.yaml", "local.yaml", "rayjob.yaml"]


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_a_command_exists_with_its_options_and_its_space_is_in_the_image(name, words):
    command = get_command(app).commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert words[-2:] == ["--address", "auto"]
    if words[2] != "SPACE":
        space = ROOT / words[2].removeprefix("/opt/harness/")
        read_section(Space, space)
        assert any(space.is_relative_to(ROOT / source) for source in copied())


def copied() -> list[str]:
    return [source for rest in of_kind("COPY") for source in rest.split()[:-1]]


def test_everything_that_the_image_copies_exists_and_is_let_into_the_build():
    let_in = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert let_in[0] == "*"
    for source in copied():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in let_in


def test_the_image_installs_by_the_constraints_fetches_nothing_else_and_names_no_index():
    for command in of_kind("RUN"):
        assert not re.search(r"\b(curl|git|wget +-|https?:)", command)
        assert "index" not in command and "find-links" not in command
    (install,) = [command for command in of_kind("RUN") if "pip install" in command]
    assert "--constraint constraints.txt" in install and '"ray[default]"' in install
    assert not any(name == "ADD" for name, _ in instructions())


def test_the_image_runs_as_a_user_who_is_not_root_and_whom_nothing_follows_that_needs_root():
    names = [name for name, _ in instructions()]
    assert of_kind("USER") == ["harness"]
    assert set(names[names.index("USER") + 1 :]) == {"ENV", "CMD"}
    assert uid() == 1000


def test_the_image_keeps_the_token_and_shows_the_commands_when_asked_for_nothing():
    (environment,) = of_kind("ENV")
    assert "RAY_AUTH_MODE=token" in shlex.split(environment)
    assert "HARNESS_RESULTS=/shared/results" in shlex.split(environment)
    assert of_kind("CMD") == ['["harness", "--help"]']
    assert 'harness = "harness.cli:main"' in PROJECT


def uid() -> int:
    (added,) = [command for command in of_kind("RUN") if "useradd" in command]
    return int(re.search(r"--uid (\d+)", added).group(1))


def home() -> str:
    return f"/home/{of_kind('USER')[0]}"


def version() -> str:
    return re.search(r'^version = "(.+)"', PROJECT, re.MULTILINE).group(1)
