"""The published tables that are put together from several rows or files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean

from harness.report.published_checks import Data, agreement, best_epochs, logged_classes, number, where
from harness.report.table import Table


def contradictions(data: Data) -> Table:
    """Every contradiction, with the evidence's numbers recomputed where the files allow it."""
    rows = tuple((*row.values(), *agreement(data, row["id"], row["expected"])) for row in data["contradictions"])
    columns = (*data["contradictions"][0], "recomputed", "agrees")
    notes = (
        "expected: the numbers of the evidence; recomputed: the same from the published files, where they allow it; "
        "agrees: whether the two are equal at the printed digits.",
    )
    return Table("contradictions", "Where a team's documents contradict its logs or each other", columns, rows, notes)


def headlines(data: Data) -> Table:
    """The published score of every (system, phase), each under its system's own convention."""
    columns = ("system", "phase", "split", "score", "convention", "source", "status")
    rows = [*_ignitia_headlines(data), *_codecrunch_headlines(data), *_desertmind_headlines(data)]
    notes = ("The conventions differ: no score of one system may be set against another's.",)
    return Table("headlines", "The score of every phase as its system takes it", columns, tuple(rows), notes)


def _ignitia_headlines(data: Data) -> list[tuple[str, ...]]:
    rows = []
    for row in data["ignitia/summary"]:
        # what follows the semicolon speaks of other columns
        rest = ("mean over batches of 2", row["source"], row["status"].split(";")[0])
        rows.append(("Ignitia", row["phase"], "val", row["best_val_iou"], *rest))
        if row["tta_val_iou"]:
            rows.append(("Ignitia", f"{row['phase']} TTA", "val", row["tta_val_iou"], *rest))
    return rows


def _codecrunch_headlines(data: Data) -> list[tuple[str, ...]]:
    rows = [row for row in where(data["codecrunch/phases"], metric="mIoU") if row["status"] != "derived"]
    return [
        (
            "CodeCrunch",
            f"{row['phase']} {row['split']}",
            row["split"],
            row["value"],
            "one matrix, mean over classes with a union",
            row["source"],
            row["status"],
        )
        for row in rows
    ]


def _desertmind_headlines(data: Data) -> list[tuple[str, ...]]:
    return [
        ("DesertMind", phase, "val", row["val_miou_full_precision"], "mean over images", row["source"], row["status"])
        for phase, row in best_epochs(data).items()
    ]


def ignitia_phases(data: Data, phases: int) -> Table:
    """The first phases side by side: scores of the best epoch, of the last epoch, and with TTA."""
    last = ("final_val_iou", "final_val_dice", "final_val_acc", "final_val_loss")
    other = ("epochs_run", "minutes", "tta_val_iou", "tta_val_dice", "tta_val_acc", "notes", "source", "status")
    at_best = ("val_dice", "val_acc", "val_loss")
    rows = []
    for row in data["ignitia/summary"][:phases]:
        best = where(data["ignitia/epochs"], phase=row["phase"], epoch=row["best_epoch"])[0]
        front = [row[c] for c in ("phase", "name", "best_val_iou", "best_epoch")]
        rows.append((*front, *(best[c] for c in at_best), *(row[c] for c in (*last, *other))))
    columns = ("phase", "name", "best_val_iou", "best_epoch", *(f"{c}_at_best" for c in at_best), *last, *other)
    word = {3: "three", 6: "six"}[phases]
    return Table(f"ignitia_{word}_phases", f"Ignitia, the first {word} phases compared", columns, tuple(rows))


def ignitia_per_class(data: Data) -> Table:
    """The IoU of each class from phase to phase, their mean, and the headline score, which is another number."""
    journey = _ignitia_journey(data)
    statuses = {name: "estimated" if name.startswith("phase 6") else "measured" for name in journey}
    status = _status(statuses)
    rows = [(name, *(column[name] for column in journey.values()), status) for name in next(iter(journey.values()))]
    means = [_mean(column.values()) for column in journey.values()]
    of_means = {name: word.replace("measured", "derived") for name, word in statuses.items()}
    rows.append(("mean of per-class", *means, _status(of_means)))
    rows.append(("headline mIoU", *(_ignitia_headline(data, name) for name in journey), "measured"))
    notes = (
        "The headline averages batches of 2, the mean averages the classes' own averages over batches: they differ.",
        "Phase 1 printed nothing per class. Phase 6 was never evaluated per class: its column is scaled from phase 5.",
    )
    columns = ("class", *journey, "status")
    return Table("ignitia_per_class", "Ignitia, IoU per class through the phases", columns, tuple(rows), notes)


def _ignitia_journey(data: Data) -> dict[str, dict[str, str]]:
    """Class to IoU, by 'phase 4' or 'phase 4 TTA'."""
    journey: dict[str, dict[str, str]] = {}
    invented = data["ignitia/phase6_per_class_ESTIMATED_not_measured"]
    for row in [*data["ignitia/per_class_iou"], *invented]:
        name = f"phase {row['phase']}{' TTA' if row['tta'] == '1' else ''}"
        journey.setdefault(name, {})[row["class"]] = row["iou_estimate" if "iou_estimate" in row else "iou"]
    return journey


def _ignitia_headline(data: Data, name: str) -> str:
    _, phase, *tta = name.split()
    return where(data["ignitia/summary"], phase=phase)[0]["tta_val_iou" if tta else "best_val_iou"]


def ignitia_changes(data: Data, phase: int) -> Table:
    """The settings that differ between a phase and the next."""
    before, after = f"phase_{phase}", f"phase_{phase + 1}"
    columns = ("setting", before, after, "source", "status", "note")
    changed = [row for row in data["ignitia/hyperparameters"] if row[before] != row[after]]
    title = f"Ignitia, what changed from phase {phase} to phase {phase + 1}"
    rows = tuple(tuple(row[c] for c in columns) for row in changed)
    return Table(f"ignitia_changes_{phase}_to_{phase + 1}", title, columns, rows)


def codecrunch_distribution(data: Data) -> Table:
    """Table 1 of CodeCrunch's report, beside exact counts of the test pixels."""
    printed = [row for row in data["codecrunch/class_distribution"] if row["source"] == "CodeCrunch report Table 1"]
    exact = where(data["codecrunch/class_distribution"], quantity="pixels_540x960")
    rows = []
    for name, raw in {row["class"]: row["raw_value"] for row in printed}.items():
        cells = {row["split"]: row for row in where(printed, **{"class": name})}
        cells["test pixels"] = where(exact, **{"class": name})[0]
        status = _status({split: row["status"] for split, row in cells.items()})
        rows.append((name, raw, *(row["value"] for row in cells.values()), status))
    columns = ("class", "raw_value", "train", "test", "train to test", "test pixels", "status")
    title = "CodeCrunch, Table 1: class distribution in %, with the exact test pixels"
    notes = ("train to test: change in points. test pixels: another team's count of the same 1002 frames at 540x960.",)
    return Table("codecrunch_01_class_distribution", title, columns, tuple(rows), notes)


def codecrunch_per_class(data: Data) -> Table:
    """Table 7 of CodeCrunch's report, and the mean of its rows beside the printed one."""
    printed = [row for row in data["codecrunch/per_class_iou"] if row["source"].startswith("CodeCrunch report Table 7")]
    names = list(dict.fromkeys(row["class"] for row in printed if row["class"] != "MEAN"))
    rows = []
    for name in [*names, "MEAN"]:
        cells = [where(printed, split=split, **{"class": name})[0] for split in ("val", "test")]
        status = _status({cell["split"]: cell["status"] for cell in cells})
        rows.append((name.replace("MEAN", "mean, as printed"), *(cell["iou"] for cell in cells), status))
    means = [_mean(row[column] for row in rows if row[0] in names) for column in (1, 2)]
    rows.append(("mean of the rows above", *means, "derived"))
    title = "CodeCrunch, Table 7: IoU per class, validation and test (with TTA)"
    return Table("codecrunch_07_per_class", title, ("class", "val", "test", "status"), tuple(rows))


def desertmind_phases(data: Data) -> Table:
    """The best epoch of each DesertMind phase."""
    columns = ("phase", "best_val_miou", "best_epoch", "epochs_run", "epochs_planned", "pixel_acc", "mean_of_per_class",
               "source", "status")  # fmt: skip
    rows = []
    for phase, row in best_epochs(data).items():
        run = len(where(data["desertmind/epochs"], phase=phase))
        rest = ("epochs_planned", "pixel_acc", "mean_of_per_class", "source")
        status = row["status"] + "; mean_of_per_class derived" * bool(row["mean_of_per_class"])
        rows.append((phase, row["val_miou_full_precision"], row["epoch"], str(run), *(row[c] for c in rest), status))
    return Table("desertmind_phases", "DesertMind, the phases compared", columns, tuple(rows))


def desertmind_per_class(data: Data) -> Table:
    """The logged IoU of each class in each phase's best epoch, beside the README's for phase 2.2."""
    per_class = data["desertmind/per_class_iou"]
    phases = {p: row for p, row in best_epochs(data).items() if any(r["phase"] == p for r in per_class)}
    journey = {f"phase {p}": logged_classes(data, p, row["epoch"]) for p, row in phases.items()}
    readme = {row["class_id"]: row["iou"] for row in where(per_class, source="README.md:431-440")}
    names = data["desertmind/label_names"]
    status = _status({name: "measured" for name in journey} | {"README, phase 2.2": "contradictory"})
    rows = [
        (row["true_class"], row["label_in_repo"], *(c[row["class_id"]] for c in journey.values()),
         readme[row["class_id"]], status)
        for row in names
    ]  # fmt: skip
    means = [_mean(column.values()) for column in [*journey.values(), readme]]
    headlines = [row["val_miou_full_precision"] for row in phases.values()]
    rows += [("mean of per-class", "", *means, "derived"), ("headline mIoU", "", *headlines, "", "measured")]
    columns = ("class", "label_in_repo", *journey, "README, phase 2.2", "status")
    notes = ("Phase 1 printed nothing per class. The headline averages images, the mean averages classes.",)
    return Table("desertmind_per_class", "DesertMind, IoU per class at the best epochs", columns, tuple(rows), notes)


def _status(parts: Mapping[str, str]) -> str:
    """One status for a row of columns: that of the first, then each column that has another."""
    first = next(iter(parts.values()))
    return "; ".join([first, *(f"{column} {status}" for column, status in parts.items() if status != first)])


def _mean(values: Iterable[str]) -> str:
    return f"{fmean(map(number, values)):.4f}"
