"""`harness export`: the best of a study, or one of its runs, to hand over."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.app import app, console
from harness.cli.inputs import say_confirmed, standing_confirmation
from harness.errors import ConfigError, StudyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.engine.onnx import Parity
    from harness.engine.trained import Trained
    from harness.report.card_facts import CardFacts
    from harness.search.confirmation import Confirmation
    from harness.store import RunFolder, StudyFolder


@app.command()
def export(
    study: Annotated[str, typer.Argument(metavar="STUDY|RUN", help="Study name or folder, or a run folder.")],
    rank: Annotated[int | None, typer.Option(min=1, help="Of the study's trials; none: 1, the best.")] = None,
    as_searched: Annotated[
        bool, typer.Option("--as-searched", help="Rank as the search did, whatever `harness confirm` found.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the Experiment alone; none: standard output.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="New folder: experiment.yaml, README.md (model card), best.safetensors.")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="With --to: model.onnx too, compared with PyTorch.")] = False,
    card: Annotated[Path | None, typer.Option(help="File for the model card alone.")] = None,
) -> None:
    """Write the best Experiment of a study, or a folder with model card and weights to hand over."""
    from harness.store import write_text

    _check_targets(output, to, onnx, card)
    run, text = _chosen(study, rank, as_searched)
    if to is not None:
        _write_folder(run, text, to, onnx)
    if card is not None:
        from harness.report.card import card_text
        from harness.report.card_facts import read_facts

        write_text(card, card_text(read_facts(run)))
        _say(f"model card of {run.path} → {card}")
    if output is not None:
        write_text(output, text)
        _say(f"{f'rank {rank or 1} of ' if run.path != Path(study) else ''}{study} → {output}")
    if output is None and to is None and card is None:
        typer.echo(text, nl=False)


def _check_targets(output: Path | None, to: Path | None, onnx: bool, card: Path | None) -> None:
    for option, path in (("-o", output), ("--to", to), ("--card", card)):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"{option} {path}: the folder {path.parent} does not exist; make it first")
    if to is not None and to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"--to {to} is there already; give the name of a new folder, or remove it")
    if onnx and to is None:
        raise ConfigError("--onnx writes model.onnx into the folder of --to; give --to FOLDER as well")


def _chosen(word: str, rank: int | None, as_searched: bool) -> tuple[RunFolder, str]:
    """The run of a word, and its Experiment as a file that says where it came from."""
    from harness.config import AblationSettings, SearchSettings, read_settings
    from harness.search.search import ranked, read_export
    from harness.store import find_study, given_run

    run = given_run(Path(word))
    if run is not None:
        if rank is not None:
            raise ConfigError(f"--rank {rank} chooses among the trials of a study, and {word} is one run; leave it out")
        return run, run.experiment.read_text()
    folder = find_study(word)
    settings = read_settings(folder.settings)
    if isinstance(settings, AblationSettings):
        raise ConfigError(
            f"'{word}' is an ablation: its arms are compared, none of them is the result; give one of its runs, "
            f"{folder.path}/runs/TRIAL ({folder.path}/trials.jsonl names the arm of each)"
        )
    if not isinstance(settings, SearchSettings):
        run = folder.run(ranked(folder, rank or 1).trial)
        return run, run.experiment.read_text()
    confirmation = None if as_searched else standing_confirmation(folder)
    if confirmation is not None:
        return _confirmed(folder, confirmation, rank or 1)
    return folder.run(ranked(folder, rank or 1).trial), read_export(folder, rank or 1)


def _confirmed(folder: StudyFolder, confirmation: Confirmation, rank: int) -> tuple[RunFolder, str]:
    """The Experiment that fresh seeds rank there, and its run among those: it is trained to its end in any case."""
    from harness.search.confirmation import confirmed_at, confirmed_text

    row = confirmed_at(confirmation, rank).best_run
    say_confirmed(confirmation, rank, "--as-searched gives the search's own ranking")
    return confirmation.folder.run(row.trial), confirmed_text(folder, confirmation, rank)


def _write_folder(run: RunFolder, text: str, to: Path, onnx: bool) -> None:
    """All files or none: they are written beside the folder, which gets its name at the end."""
    from harness.report.card import Handed, card_text
    from harness.report.card_facts import read_facts
    from harness.store import write_text

    if onnx:
        from harness.engine.onnx import check_onnx

        check_onnx()
        if not run.best.exists():
            raise StudyError(
                f"{run.path}: the weights of this trial were not kept, and --onnx needs them; give another --rank, or "
                "train its Experiment (harness export … -o best.yaml, harness train best.yaml)"
            )
    with tempfile.TemporaryDirectory(dir=to.absolute().parent, prefix=f".{to.name}.") as unfinished:
        folder = Path(unfinished) / to.name
        folder.mkdir()
        write_text(folder / "experiment.yaml", text)
        facts = read_facts(run)
        said = _write_model(run, facts, folder, onnx) if run.best.exists() else None
        write_text(folder / "README.md", card_text(facts, Handed(to.name, run.best.exists(), said)))
        if to.exists():
            to.rmdir()
        folder.rename(to)
    names = ", ".join(sorted(path.name for path in to.iterdir()))
    _say(f"{run.path} → {to}: {names}")
    if not run.best.exists():
        _say("its weights were not kept; train the Experiment again to have them")
    if said:
        _say(said)


def _write_model(run: RunFolder, facts: CardFacts, folder: Path, onnx: bool) -> str | None:
    """The weights, and model.onnx if it is asked for; returns what is to be said of that."""
    import torch

    from harness.engine.checkpoint import load_header, pack_weights
    from harness.engine.onnx import export_onnx
    from harness.engine.trained import open_run
    from harness.store import write_bytes

    trained = open_run(run, torch.device("cpu"))
    # a frozen encoder lies once beside all runs; here nothing lies beside
    header = {key: value for key, value in load_header(run.best).items() if key != "frozen"}
    write_bytes(folder / "best.safetensors", pack_weights(trained.model, header))
    if not onnx:
        return None
    image, what = _frame(trained, facts)
    with console.status("exporting to ONNX and comparing"):
        return _in_words(export_onnx(trained, folder / "model.onnx", image), what)


def _frame(trained: Trained, facts: CardFacts) -> tuple[NDArray, str]:
    """A frame to compare on, and what it is: one of validation where those are here, else a generated one."""
    from harness.data import list_frames, read_image, render_frame

    if "val" in facts.data.splits:
        frame = list_frames(Path(trained.experiment.data.root), "val")[0]
        return read_image(frame.image), f"validation frame {frame.name}"
    return render_frame("train", 0, 270, 480)[0], "a generated frame"


def _in_words(parity: Parity, frame: str) -> str:
    from harness.engine.onnx import OPSET, TOLERANCE

    same = f"the class is the same at all {parity.pixels:,} pixels"
    if parity.ties:
        same = f"the class is the same at all but {parity.ties} of {parity.pixels:,} pixels, which are ties"
    return (
        f"`model.onnx` (opset {OPSET}, float32, any batch) agrees with PyTorch in onnxruntime on noise and on {frame}: "
        f"logits differ by at most {parity.difference:.1e}, which is {parity.difference / (parity.scale or 1):.1e} of "
        f"the largest ({parity.scale:.3g}; {TOLERANCE:g} of it is allowed), {same}. It gives logits at the input size, "
        "of one view."
    )


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
