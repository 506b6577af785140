"""Every benchmark runs at a tiny size and holds both sides; no time is asserted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.bench import epoch, gpu, gpu_steps, input, loss, memory, scale, scores, search, teams, trials, views
from harness.bench.frames import desert_frames, repeated_frames
from harness.bench.rows import Goal, Row
from harness.bench.workplace import Workplace
from harness.config.model import ConvNeXtStyleHead
from harness.data import list_frames, open_frames
from harness.store import RunFolder


def check(row: Row, goal: Goal | None) -> None:
    assert row.ours and row.theirs and row.note
    assert row.value.point > 0
    assert row.goal == goal


def test_input_holds_both_sides(desert: Path) -> None:
    row = input.input_row(desert, input.CASES[0]._replace(size=(28, 42)), input.Effort(frames=4, pairs=2))
    check(row, Goal(10, at_least=True))
    assert row.pairs == 2


def test_both_loaders_make_an_epoch_of_every_frame_and_ours_is_another_epoch_each_time(
    desert: Path, monkeypatch
) -> None:
    case, asked = input.CASES[2]._replace(size=(28, 42)), []
    batches = input.train_batches
    monkeypatch.setattr(
        input,
        "train_batches",
        lambda *args, **options: asked.append((options["epoch"], len(args[0]))) or batches(*args, **options),
    )
    run = input.our_epochs(desert, case)
    run()
    run()
    frames = len(list_frames(desert, "train"))
    assert asked == [(1, frames), (2, frames)]
    assert len(input.TeamFrames(desert, "train", case.transform(*case.size), case.ids, case.unlisted)) == frames
    input.their_epochs(desert, case)()


def test_scores_hold_both_sides_and_our_counts_are_the_scores_of_the_peer(place: Workplace) -> None:
    for row in scores.rows(place, quick=True):
        check(row, Goal(10, at_least=True))
    logits, truth = scores.batch_of(scores.QUICK)
    wide = teams.upsample(logits, scores.QUICK.size)
    matrices = scores.our_counts(wide, truth)
    right = matrices.diagonal(dim1=1, dim2=2).sum() / matrices.sum()
    assert right.item() == pytest.approx(teams.accuracy(wide, truth), abs=1e-6)


def test_loss_holds_both_sides_and_both_steps_give_one_number(place: Workplace) -> None:
    for row in loss.rows(place, quick=True):
        check(row, Goal(5, at_least=True))
    logits, truth = scores.batch_of(loss.QUICK)
    logits.requires_grad_()
    ours, theirs = loss.both_losses(truth)
    first, gradient = loss.our_step(ours, logits, truth), logits.grad
    second = loss.their_step(theirs, logits, truth)
    assert first.item() == pytest.approx(second.item(), abs=1e-5)
    torch.testing.assert_close(gradient, logits.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("number", [0, 1])
def test_an_epoch_holds_both_sides_and_says_what_is_not_counted(desert: Path, tmp_path: Path, number: int) -> None:
    tiny = {"backbone": "vit_tiny_patch16_224", "size": (32, 48), "head": ConvNeXtStyleHead(channels=8)}
    case = epoch.CASES[number]._replace(**tiny)
    row = epoch.epoch_row(case, epoch.Effort(train=4, val=3, pairs=2), desert, RunFolder(tmp_path / "run"))
    check(row, epoch.CASES[number].goal)
    assert "not counted" in row.note


def test_the_goals_of_the_epochs_are_25_50_and_4() -> None:
    assert [case.goal and case.goal.limit for case in epoch.CASES] == [25, 50, 4, None]


def test_a_search_runs_the_same_trials_with_stored_features_and_without(place: Workplace) -> None:
    row = search.search_row(place, search.Effort(2, 1, 4, 2, (42, 56)), "fp32", Goal(10, at_least=True))
    check(row, Goal(10, at_least=True))
    assert "differ by at most 0" in row.note
    assert search.SWITCH not in os.environ


def test_the_search_has_three_heads_and_four_losses_200_frames_20_trials_and_5_epochs() -> None:
    full = search.FULL
    assert (full.trials, full.epochs, full.train + full.val) == (20, 5, 200)
    assert (len(search._HEADS), len(search._LOSSES)) == (3, 4)


def test_the_plain_loop_trains_every_trial_of_the_search(place: Workplace, tmp_path: Path) -> None:
    space = trials._space(place, trials.Effort(2, 1, 4, 1, 4, 1))
    found = list(iter(trials._search(tmp_path / "study", space).next_trial, None))
    assert len({trial.id for trial in found}) == 2
    trials.train_all(found, tmp_path)
    assert all(RunFolder(tmp_path / trial.id).last.exists() for trial in found)


def test_a_paused_trial_goes_on_from_its_checkpoint(place: Workplace) -> None:
    row = trials.resume_row(place, trials.Effort(2, 1, 4, 1, 4, 1))
    check(row, Goal(1.0, at_least=False))
    assert row.pairs == 2


def test_as_many_stored_views_as_epochs_change_nothing_and_fewer_have_a_tolerance(place: Workplace) -> None:
    one, as_many = views.rows(place, quick=True)
    assert one.goal == Goal(views.TOLERANCE, at_least=False)
    assert (as_many.value.point, as_many.value.high, as_many.goal) == (0, 0, Goal(0.0, at_least=False))


def test_the_scale_is_that_of_10000_ended_trials_and_every_call_is_held_against_50_ms(place: Workplace) -> None:
    found = list(scale.strategy_rows(place, "random_asha", scale.Effort(ended=4, further=3)))
    assert scale.FULL.ended == 10_000
    assert [row.goal for row in found] == [Goal(0.05, at_least=False)] * 3
    assert [row.pairs for row in found][::2] == [3, 3] and all(row.ours and row.theirs for row in found)


def test_memory_counts_the_pages_of_the_mappings_that_are_named_and_of_no_other() -> None:
    smaps = (
        "7f00-7f10 r--s 00000000 fe:00 1 /cache/frames-v1/images.npy\n"
        "Rss:                 100 kB\nPss:                  40 kB\nPss_Dirty:            0 kB\n"
        "7f10-7f20 rw-p 00000000 00:00 0 \nRss:                 7 kB\nPss:                  7 kB\n"
        "7f20-7f30 r--s 00000000 fe:00 1 /cache/features-v1/array.npy\n"
        "Pss:                  2 kB\n"
    )
    assert memory.pss(smaps, "/cache") == 42 * 1024
    assert memory.pss(smaps, "/elsewhere") == 0


def test_many_frames_are_links_to_few(place: Workplace) -> None:
    root = repeated_frames(place, 20, 3, (42, 56))
    assert [len(list_frames(root, split)) for split in ("train", "val")] == [20, 3]
    frames = open_frames(root, "train", (42, 56))
    assert (frames.images[0] == frames.images[16]).all() and (frames.images[0] != frames.images[1]).any()
    assert desert_frames(place, 16, 3, (42, 56)).is_dir()


def test_without_a_gpu_the_gpu_section_says_so_and_measures_nothing(place: Workplace, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert list(gpu.rows(place)) == []
    assert place.console.file.getvalue().strip().splitlines() == [
        "gpu: torch sees no CUDA device here; nothing is measured"
    ]


@pytest.mark.parametrize("stored", [True, False])
def test_the_steps_of_the_gpu_section_run_on_any_device(stored: bool) -> None:
    case = gpu_steps.CASES[0]._replace(size=(28, 42))
    row = gpu.alone_row(case, stored, gpu.Effort(1, 1, (), 0.0), torch.device("cpu"))
    check(row, None)
    assert ("features stored" in row.what) is stored


def test_steps_a_second_count_whole_steps() -> None:
    done: list[int] = []
    assert gpu.steps_per_second(lambda: done.append(1), 0.001) > 0
    assert len(done) % 10 == 0


def test_the_gpu_section_is_imported_where_albumentations_ray_and_optuna_are_not_installed() -> None:
    blocked = "import sys\nfor name in ('albumentations', 'ray', 'optuna'):\n    sys.modules[name] = None\n"
    subprocess.run([sys.executable, "-c", f"{blocked}import harness.bench.gpu"], check=True)
