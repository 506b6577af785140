"""The Experiment and its sections, the Space, YAML in and out, dotted overrides."""

from harness.config.ablation import Ablation
from harness.config.base import IGNORE, Section, json_schema, name_problem
from harness.config.experiment import Experiment, Trial, canonical_json, fingerprint
from harness.config.overrides import apply_overrides, parse_override
from harness.config.policies import POLICIES, policy_steps
from harness.config.space import Space, check_space, is_active, to_overrides
from harness.config.study import (
    CONFIRMED_TRIALS,
    AblationSettings,
    ReplicateSettings,
    SearchSettings,
    Settings,
    differences,
    flat,
    read_settings,
)
from harness.config.validate import did_you_mean, printable, read_section, shortened, validate_section, visible
from harness.config.yaml_file import dump_yaml, load_yaml, parse_yaml

__all__ = [
    "CONFIRMED_TRIALS", "IGNORE", "POLICIES", "Ablation", "AblationSettings", "Experiment", "ReplicateSettings",
    "SearchSettings", "Section", "Settings", "Space", "Trial", "apply_overrides", "canonical_json", "check_space",
    "did_you_mean", "differences", "dump_yaml", "fingerprint", "flat", "is_active", "json_schema", "load_yaml",
    "name_problem", "parse_override", "parse_yaml", "policy_steps", "printable", "read_section", "read_settings",
    "shortened", "to_overrides", "validate_section", "visible",
]  # fmt: skip
