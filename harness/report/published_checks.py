"""What the published numbers themselves say to each contradiction that arithmetic can settle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean

from harness.errors import StudyError

Rows = list[dict[str, str]]
Data = Mapping[str, Rows]
"""The rows of each CSV file, by its path without the ending, such as 'ignitia/epochs'."""


def number(text: str) -> float:
    """A cell as a number; '~' and a final '%' are left out, the latter divides by 100.

    Raises:
        StudyError: the cell is no number.
    """
    try:
        return float(text.lstrip("~").rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise StudyError(f"{text!r} stands where the published tables need a number; give one such as 0.5161") from None


def where(rows: Rows, **cells: str) -> Rows:
    """The rows that hold these cells.

    Raises:
        StudyError: no row does.
    """
    found = [row for row in rows if all(row[column] == cell for column, cell in cells.items())]
    if not found:
        raise StudyError(f"no row of the published tables holds {cells}; restore the row")
    return found


def numbers(rows: Rows, column: str, **cells: str) -> list[float]:
    """A column, of the rows that hold these cells."""
    return [number(row[column]) for row in where(rows, **cells)]


def agreement(data: Data, id: str, expected: str) -> tuple[str, str]:
    """The recomputed numbers, with the decimals of the expected ones, and whether they agree: yes or no.

    Both are empty where the contradiction has nothing to recompute.
    """
    if id not in CHECKS:
        return "", ""
    texts = expected.split("; ")
    values = [f"{value:.{_decimals(text)}f}" for value, text in zip(CHECKS[id](data), texts, strict=True)]
    return "; ".join(values), "yes" if values == texts else "no"


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def per_class(data: Data, phase: str, tta: str = "0") -> dict[str, float]:
    """Ignitia's measured IoU of each class in a phase."""
    rows = where(data["ignitia/per_class_iou"], phase=phase, tta=tta)
    return {row["class"]: number(row["iou"]) for row in rows}


def _ignitia(data: Data, phase: str, epoch: str) -> dict[str, str]:
    return where(data["ignitia/epochs"], phase=phase, epoch=epoch)[0]


def _setting(data: Data, setting: str, phase: str) -> float:
    return number(where(data["ignitia/hyperparameters"], setting=setting)[0][f"phase_{phase}"])


def _pixels_of_an_image(data: Data, phase: str) -> float:
    return _setting(data, "input width", phase) * _setting(data, "input height", phase)


def _differs(row: dict[str, str]) -> bool:
    """Whether a printed cell is not the logged one at its own precision: 71.10%, 8.4e-5 or 0.3111."""
    printed, logged = row["document_value"], number(row["history_value"])
    digits, _, exponent = printed.rstrip("%").partition("e")
    scale = 10.0 ** int(exponent or 0) / (100 if printed.endswith("%") else 1)
    return f"{logged / scale:.{_decimals(digits)}f}" != digits


def _d1(data: Data) -> list[float]:
    cells = [row for row in data["ignitia/disagreements_epochs"] if _differs(row)]
    of = [row["document"] for row in cells]
    return [of.count("Ignitia phase-2 report"), max(number(row["epoch"]) for row in cells), of.count("README")]


def _d2(data: Data) -> list[float]:
    factors = {"dice": 1.354, "acc": 1.568}
    invented = data["ignitia/phase6_derived_not_measured"]
    pairs = [(row, _ignitia(data, "6", row["epoch"])) for row in invented]
    ratios = [fmean(number(row[f"val_{name}"]) / number(epoch["val_iou"]) for row, epoch in pairs) for name in factors]
    same = sum(
        abs(number(row[f"{split}_{name}"]) - factor * number(epoch[f"{split}_iou"])) < 0.5001e-4
        for row, epoch in pairs
        for split in ("train", "val")
        for name, factor in factors.items()
    )
    last = where(data["ignitia/summary"], phase="5")[0]
    return [*ratios, same, *(number(last[f"final_val_{name}"]) / number(last["final_val_iou"]) for name in factors)]


def _d4(data: Data) -> list[float]:
    estimate = fmean(numbers(data["ignitia/phase6_per_class_ESTIMATED_not_measured"], "iou_estimate"))
    before = fmean(per_class(data, "5", "1").values())
    headline = [numbers(data["ignitia/summary"], "tta_val_iou", phase=phase)[0] for phase in ("5", "6")]
    return [estimate, before, 100 * (estimate / before - 1), 100 * (headline[1] / headline[0] - 1)]


def _d5(data: Data) -> list[float]:
    old, new = per_class(data, "3"), per_class(data, "4")
    changes = [100 * (new[name] / old[name] - 1) for name in old]
    return [min(changes), max(changes), old["Trees"], old["Dry Bushes"]]


def _d6(data: Data) -> list[float]:
    two, three = per_class(data, "2"), per_class(data, "3")
    later = ("Dry Bushes", "Rocks", "Ground Clutter", "Logs")
    return [two["Rocks"], two["Ground Clutter"], *(three[name] for name in later)]


def _d7(data: Data) -> list[float]:
    rows = data["ignitia/class_pixels"]
    pixels = {row["class"]: number(row["pixel_count"]) for row in rows}
    total = sum(pixels.values())
    implied = pixels["Sky"] / numbers(rows, "percent", **{"class": "Sky"})[0] / 1e4
    return [sum(numbers(rows, "percent")), total, implied, *(100 * pixels[n] / total for n in ("Sky", "Landscape"))]


def _d8(data: Data) -> list[float]:
    rows = data["ignitia/class_pixels"]
    pixels = numbers(rows, "pixel_count")
    printed = zip(numbers(rows, "weight"), pixels, strict=True)
    return [fmean(pixels) / min(pixels), max(abs(w - round(5 * min(pixels) / n, 4)) for w, n in printed)]


def _d11(data: Data) -> list[float]:
    last, before = _ignitia(data, "5", "30"), _ignitia(data, "5", "29")
    return [number(last["train_dice"]), number(before["train_dice"]), number(last["val_dice"])]


def _d14(data: Data) -> list[float]:
    of_phase_1 = [row for row in data["ignitia/per_class_iou"] if row["phase"] == "1"]
    return [per_class(data, "2")["Logs"], per_class(data, "2")["Rocks"], len(of_phase_1)]


def _d16(data: Data) -> list[float]:
    files = {"2": "ignitia/class_pixels", "6": "ignitia/class_pixels_phase6"}
    return [sum(numbers(data[f], "pixel_count")) / _pixels_of_an_image(data, phase) for phase, f in files.items()]


def _d17(data: Data) -> list[float]:
    head = _setting(data, "head parameters", "1")
    return [head, head * 4 / 1e6, head * 12 / 1e6]


def _d19(data: Data) -> list[float]:
    head = _setting(data, "head parameters", "3")
    return [head, head + _setting(data, "backbone parameters trained", "5")]


def _d26(data: Data) -> list[float]:
    names = ("shift", "scale", "rotation, degrees", "shift-scale-rotate, probability", "colour, probability")
    return [_setting(data, name, "2") for name in names]


def _c1(data: Data) -> list[float]:
    scores = numbers(data["codecrunch/phases"], "value", phase="3", split="test", status="contradictory")
    return [min(scores), max(scores), max(scores) - min(scores)]


def _c2(data: Data) -> list[float]:
    plain = min(numbers(data["codecrunch/phases"], "value", phase="3", split="test"))
    # the .31 of the table may be anything that rounds to .310
    return [value * 10 / 7 for value in (plain, plain - 0.0005, plain + 0.0005)]


def _c3(data: Data) -> list[float]:
    best = numbers(data["codecrunch/phases"], "value", phase="5", metric="epoch")[0]
    tested = numbers(data["codecrunch/phase5_lr_schedule"], "epoch", test_evaluated="yes")
    return [best, [epoch for epoch in tested if epoch > best][14]]


def _c4(data: Data) -> list[float]:
    curve = data["codecrunch/phase3_curve_digitised"]
    # the legend's best is printed; its neighbours are read off the line, to 0.001
    best = where(curve, status="measured")[0]
    above = sum(number(row["val_loss"]) >= number(row["train_loss"]) for row in curve)
    return [len(curve), number(best["epoch"]), number(best["val_miou"]), above]


def _c5(data: Data) -> list[float]:
    rows = where(data["codecrunch/per_class_iou"], split="val")
    return [fmean(number(r["iou"]) for r in rows if "Table 7;" in r["source"] and r["class"] != "MEAN")]


def _c6(data: Data) -> list[float]:
    rows = where(data["codecrunch/class_weights"], source="train.py:558-560")
    return [numbers(rows, "value", **{"class": name})[0] for name in ("Trees", "Dry Bushes")]


def _c8(data: Data) -> list[float]:
    rows = where(data["codecrunch/color_means"], source="figures/fig2_color_distributions.png")
    train, test = where(rows, split="train")[0], where(rows, split="test")[0]
    return [number(test[colour]) - number(train[colour]) for colour in "RGB"]


def _c9(data: Data) -> list[float]:
    scores = {
        row["phase"]: number(row["value"])
        for row in where(data["codecrunch/phases"], split="test", metric="mIoU", status="measured")
    }
    return [scores["4"] - scores["3+supp"], scores["4"] - scores["5"]]


def _c13(data: Data) -> list[float]:
    columns = {"codecrunch/phase3_curve_digitised": "lr_fitted", "codecrunch/phase5_lr_schedule": "lr_head"}
    return [max(numbers(data[file], column)) for file, column in columns.items()]


def _c14(data: Data) -> list[float]:
    bushes = where(data["codecrunch/class_distribution"], **{"class": "Lush Bushes", "split": "test"})
    images = numbers(data["codecrunch/benchmark"], "value", metric="Test images")[0]
    counted = where(data["codecrunch/prediction_counts"], **{"class": "Lush Bushes"})[0]
    exact = numbers(bushes, "value", quantity="pixels_540x960")[0]
    return [numbers(bushes, "value", quantity="pixels")[0] / images, exact, number(counted["predicted_pixels_test"])]


def _c16(data: Data) -> list[float]:
    rows = [row for row in data["codecrunch/gpu_hours"] if row["source"] == "CodeCrunch report Table 10"]
    score = {row["phase"].split(" (")[0]: number(row["test_miou"]) for row in rows}
    phases = data["codecrunch/phases"]
    ends = [numbers(phases, "value", phase=p, metric="mIoU", status="measured")[0] for p in ("5+TTA", "3+supp")]
    return [sum(numbers(rows, "hours")), ends[0] - ends[1], score["Phase 5"] - score["Phase 4"]]


def best_epochs(data: Data) -> dict[str, dict[str, str]]:
    """DesertMind's epoch row of each phase's best epoch."""
    return {row["phase"]: row for row in where(data["desertmind/epochs"], is_best="yes")}


def logged_classes(data: Data, phase: str, epoch: str) -> dict[str, str]:
    """DesertMind's logged IoU of each class id in an epoch."""
    rows = where(data["desertmind/per_class_iou"], phase=phase, epoch=epoch, status="measured")
    return {row["class_id"]: row["iou"] for row in rows}


def _dd2(data: Data) -> list[float]:
    rows = where(data["desertmind/per_class_iou"], source="README.md:431-440")
    printed = {row["class_id"]: number(row["iou"]) for row in rows}

    def off(phase: str, epoch: str) -> list[float]:
        logged = logged_classes(data, phase, epoch)
        return [abs(number(logged[id]) - value) for id, value in printed.items()]

    epochs = {(r["phase"], r["epoch"]) for r in data["desertmind/per_class_iou"] if r["epoch"].isdigit()}
    differ = sum(value >= 0.0005 for value in off("2.2", best_epochs(data)["2.2"]["epoch"]))
    return [differ, min(max(off(*epoch)) for epoch in epochs), fmean(printed.values())]


def _dd3(data: Data) -> list[float]:
    rows = data["desertmind/readme_expected_output_vs_log"]
    same = [row for row in rows if not row["log_value"].startswith("no ") and _equal(row)]
    return [len(rows) - len(same), len(rows)]


def _equal(row: dict[str, str]) -> bool:
    return number(row["readme_value"]) == number(row["log_value"])


def _dd8(data: Data) -> list[float]:
    epochs = data["desertmind/epochs"]
    return [numbers(epochs, "train_loss", phase="2.1")[-1], numbers(epochs, "train_loss", phase="2.2")[0]]


def _dd10(data: Data) -> list[float]:
    best = {phase: number(row["val_miou_full_precision"]) for phase, row in best_epochs(data).items()}
    return [numbers(data["desertmind/epochs"], "val_miou", phase="2.1")[0], best["1"], best["2.2"]]


def _dd11(data: Data) -> list[float]:
    last = {p: number(logged_classes(data, p, best_epochs(data)[p]["epoch"])["9"]) for p in ("2.2", "3")}
    return [(last["2.2"] - last["3"]) / 10]


def _dd12(data: Data) -> list[float]:
    return [
        max(numbers(data["ignitia/summary"], "best_val_iou")),
        numbers(data["codecrunch/phases"], "value", phase="3", split="val")[0],
    ]


def _dd13(data: Data) -> list[float]:
    accuracy = numbers(data["desertmind/epochs"], "pixel_acc", phase="3")
    return [min(accuracy), max(accuracy)]


def _mebibytes(data: Data, setting: str, phase: str, bytes_each: int) -> float:
    return _setting(data, setting, phase) * bytes_each / 2**20


def _ignitia_cells(phase: str, epoch: str, *columns: str) -> Callable[[Data], list[float]]:
    return lambda data: [number(_ignitia(data, phase, epoch)[column]) for column in columns]


def _summary(phase: str, column: str) -> Callable[[Data], list[float]]:
    return lambda data: numbers(data["ignitia/summary"], column, phase=phase)


CHECKS: Mapping[str, Callable[[Data], list[float]]] = {
    "D1": _d1,
    "D2": _d2,
    "D4": _d4,
    "D5": _d5,
    "D6": _d6,
    "D7": _d7,
    "D8": _d8,
    "D9": _ignitia_cells("2", "26", "val_dice", "val_acc", "val_loss"),
    "D10": _summary("3", "minutes"),
    "D11": _d11,
    "D12": lambda d: [
        numbers(d["ignitia/lr_in_effect"], "lr_in_effect_during_epoch", phase=p, epoch="1")[0] for p in ("3", "4")
    ],
    "D13": lambda d: [len({where(d["ignitia/hyperparameters"], setting="loss")[0][f"phase_{p}"] for p in (1, 2, 3)})],
    "D14": _d14,
    "D15": lambda d: [per_class(d, "2")[name] for name in ("Landscape", "Trees", "Rocks")],
    "D16": _d16,
    "D17": _d17,
    "D18": lambda d: [_mebibytes(d, "head parameters", phase, 4) for phase in ("3", "1")],
    "D19": _d19,
    "D20": lambda d: [_mebibytes(d, "trainable parameters", phase, 12) for phase in ("5", "6")],
    "D21": lambda d: [100 * (_pixels_of_an_image(d, "3") / _pixels_of_an_image(d, "2") - 1)],
    "D22": _summary("4", "best_epoch"),
    "D23": _summary("5", "best_epoch"),
    "D26": _d26,
    "D27": lambda d: [
        _setting(d, name, phase) for name in ("CLAHE clip limit", "CLAHE, probability") for phase in ("4", "5")
    ],
    "D31": lambda d: [_setting(d, "training images", "3") % _setting(d, "batch size", "3")],
    "D34": lambda d: [(1 - 0.5) ** 2 / (1 - 0.9) ** 2],
    "C-D1": _c1,
    "C-D2": _c2,
    "C-D3": _c3,
    "C-D4": _c4,
    "C-D5": _c5,
    "C-D6": _c6,
    "C-D7": lambda d: [len(where(d["codecrunch/phase5_lr_schedule"], test_evaluated="yes"))],
    "C-D8": _c8,
    "C-D9": _c9,
    "C-D11": lambda d: [896 / 512, 960 / 540],
    "C-D13": _c13,
    "C-D14": _c14,
    "C-D15": lambda d: [10000 >> 8, 10000 & 255],
    "C-D16": _c16,
    "D-D1": lambda d: [len(where(d["desertmind/label_names"], correct="yes")), len(d["desertmind/label_names"])],
    "D-D2": _dd2,
    "D-D3": _dd3,
    "D-D4": lambda d: [fmean(numbers(d["desertmind/class_weights"], "weight", source="README.md:359"))],
    "D-D8": _dd8,
    "D-D10": _dd10,
    "D-D11": _dd11,
    "D-D12": _dd12,
    "D-D13": _dd13,
    "D-D14": lambda d: [numbers(d["desertmind/epochs"], "val_miou", phase=phase)[0] for phase in ("3", "1")],
}
"""What to recompute for a contradiction's id; the CSV's `check` says it in words."""
