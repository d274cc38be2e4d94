"""Draws results: ``python -m benchmarks.plots RESULT.json [FOLDER]``; one PNG per group of cases, or per curve."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot  # the backend is chosen first: there may be no screen

# The same colour for a system in every plot, whichever take part.
COLOURS = {
    "lahja": "#999999",
    "lahja_capn": "#0072b2",
    "lahja_capn_trio": "#56b4e9",
    "lahja_capn_uvloop": "#003a63",
    "pyzmq_blocking": "#d55e00",
    "pyzmq_asyncio": "#e69f00",
    "nats": "#009e73",
    "zenoh": "#cc79a7",
    "echo": "#000000",
    "sockets": "#000000",
}


def draw(source: Path, folder: Path) -> list[Path]:
    """Draw a file of results into a folder; returns the images."""
    facts = json.loads(source.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    if "curves" in facts:
        return [_curve(facts, curve, folder) for curve in facts["curves"] if curve["points"]]
    groups = dict.fromkeys(one["group"] for one in facts["results"] if one["median"] is not None)
    return [_group(facts, group, folder) for group in groups]


def _caption(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    cores = f"{machine['processor']}, {machine['cores']} cores"
    return f"{facts['commit'] or 'unknown commit'}; {cores}; {facts['began'][:10]}"


def _save(figure: Any, facts: dict[str, Any], path: Path) -> Path:
    figure.text(0.99, 0.01, _caption(facts), ha="right", va="bottom", fontsize=6, color="#666666")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def _group(facts: dict[str, Any], group: str, folder: Path) -> Path:
    """One panel per case: a bar per system from 0 to its median, and a line from the lowest to the highest round."""
    results = [one for one in facts["results"] if one["group"] == group and one["median"] is not None]
    cases = list(dict.fromkeys(one["case"] for one in results))
    columns = min(3, len(cases))
    rows = -(-len(cases) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.2 * columns, 0.8 + 2.4 * rows), squeeze=False)
    for axis in axes.flat[len(cases) :]:
        axis.axis("off")
    for axis, case in zip(axes.flat, cases, strict=False):
        these = [one for one in results if one["case"] == case][::-1]
        names = [one["system"] for one in these]
        medians = [one["median"] for one in these]
        axis.barh(names, medians, color=[COLOURS.get(name, "#bbbbbb") for name in names], height=0.7)
        for place, one in enumerate(these):
            axis.plot([min(one["values"]), max(one["values"])], [place, place], color="black", linewidth=1)
        better = "less is better" if these[0]["lower_is_better"] else "more is better"
        axis.set_title(case, fontsize=10)
        axis.set_xlabel(f"{these[0]['unit']} ({better})", fontsize=8)
        axis.set_xlim(left=0)
        axis.tick_params(labelsize=7)
        axis.xaxis.set_major_locator(pyplot.MaxNLocator(4))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return _save(figure, facts, folder / f"{group.replace(' ', '-')}.png")


def _curve(facts: dict[str, Any], curve: dict[str, Any], folder: Path) -> Path:
    """The cost over what grows, both logarithmic: a flat line is a cost that does not grow."""
    figure, axis = pyplot.subplots(figsize=(5.5, 3.6))
    points = curve["points"]
    along = [point["at"] for point in points]
    axis.plot(along, [point["median"] for point in points], marker="o", color=COLOURS["lahja_capn"])
    axis.fill_between(
        along,
        [min(point["values"]) for point in points],
        [max(point["values"]) for point in points],
        color=COLOURS["lahja_capn"],
        alpha=0.2,
    )
    axis.set_xscale("log")
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    # At least two decades, so that noise does not look like growth.
    middle = (low * high) ** 0.5
    axis.set_ylim(min(low, middle / 10), max(high, middle * 10))
    axis.set_xlabel(curve["along"])
    axis.set_ylabel(curve["unit"])
    axis.set_title(curve["name"], fontsize=10)
    axis.grid(visible=True, which="major", color="#dddddd")
    return _save(figure, facts, folder / f"growth-{curve['name'].replace(' ', '-')}.png")


def main(arguments: list[str]) -> int:
    if not 1 <= len(arguments) <= 2:
        print(__doc__, file=sys.stderr)
        return 2
    source = Path(arguments[0])
    folder = Path(arguments[1]) if len(arguments) == 2 else source.with_suffix("")
    for image in draw(source, folder):
        print(image)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
