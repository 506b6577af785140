from __future__ import annotations

import math

import pytest
import torch

from harness.config import Experiment, apply_overrides
from harness.errors import StudyError
from harness.models import build_model
from harness.run.measure import gpu_share, measure_all

TINY = {
    "data.synthetic": {"train": 4, "val": 2, "test": 1, "height": 40, "width": 72},
    "data.input_size": [32, 64],
    "model.backbone": "test_convnext",
    "model.stride": None,
}


def test_a_step_of_each_model_gives_its_parameters_and_time_and_on_a_cpu_no_memory():
    frozen = TINY | {"model.trainable_blocks": 0, "model.head": {"kind": "linear"}}
    experiments = [apply_overrides(Experiment(), changes) for changes in (frozen, TINY)]
    small, large = measure_all(experiments, threads=1)
    parameters = [sum(p.numel() for p in build_model(e.model, 10).parameters()) for e in experiments]
    assert [small.parameters, large.parameters] == parameters and parameters[0] < parameters[1]
    assert small.milliseconds > 0 and large.milliseconds > 0
    assert math.isnan(small.peak_memory_mb) or torch.cuda.is_available()


@pytest.mark.parametrize(
    ("peak", "gpu", "share"), [(1000, 24_000, 0.0769), (5000, 24_000, 0.3333), (11_000, 24_000, 1.0), (300, 2100, 0.5)]
)
def test_the_share_is_that_of_as_many_equal_trials_as_fit_with_margin(peak, gpu, share):
    assert gpu_share(peak, gpu) == share
    together = int(1 / share)
    assert together * (peak * 1.1 + 700) <= gpu < (together + 1) * (peak * 1.1 + 700)


def test_a_trial_that_does_not_fit_on_the_gpu_is_refused_with_what_it_needs():
    with pytest.raises(
        StudyError, match=r"needs 22700 MB of GPU memory \(20000 measured, with margin\).*has 16000: lower"
    ):
        gpu_share(20_000, 16_000)
