"""Plots as inline SVG, drawn in the page's own colours so that light and dark both work."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Stand-ins that the page's style sheet replaces by its variables.
_INK: Final = "#010203"
_FAINT: Final = "#040506"
_SOFT: Final = "#070809"
_SERIES: Final = ("#0a0b01", "#0a0b02")
_SIZE: Final = (4.4, 2.9)
"""Inches; narrow, so that text stays legible where the page is."""
_VARIABLES: Final = {
    _INK: "var(--ink)",
    _FAINT: "var(--line)",
    _SOFT: "var(--soft)",
    _SERIES[0]: "var(--accent)",
    _SERIES[1]: "var(--second)",
}
_MARKS: Final = {"federated": (_SERIES[0], "D"), "pooled": (_SOFT, "s")}
"""Colour and marker; a hospital alone has the second colour and a dot."""
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.hashsalt": "comity",
}


def history_svg(history: Mapping[str, Sequence[float]]) -> str:
    """Held-back accuracy and AUC after each round."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(*_SIZE)
        names = [name for name in ("accuracy", "auc") if history.get(name)]
        for name, colour in zip(names, _SERIES, strict=False):
            values = history[name]
            rounds = range(1, len(values) + 1)
            axes.plot(rounds, values, color=colour, linewidth=2, marker="o", markersize=3)
            label = {"auc": "AUC"}.get(name, name)
            axes.annotate(
                f"{label} {values[-1]:.3f}",
                (len(values), values[-1]),
                xytext=(6, 0),
                textcoords="offset points",
                color=colour,
                va="center",
            )
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.02)
        axes.grid(axis="y", color=_FAINT, linewidth=0.6)
        return _svg(figure, "history", "Accuracy and AUC on held-back records after each round")


def comparison_svg(rows: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy of each way of training, with its deviation over the seeds."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(_SIZE[0], max(_SIZE[1], 0.36 * len(rows) + 0.7))
        for place, row in enumerate(reversed(rows)):
            mean, deviation = row["accuracy"]["mean"], row["accuracy"]["deviation"]
            colour, marker = _MARKS.get(row["name"], (_SERIES[1], "o"))
            axes.errorbar(
                mean,
                place,
                xerr=deviation,
                fmt=marker,
                color=colour,
                capsize=3,
                markersize=7,
                markerfacecolor="none" if row["name"] == "pooled" else colour,
                markeredgewidth=1.5,
            )
        axes.set_yticks(range(len(rows)), [row["label"] for row in reversed(rows)])
        axes.set_xlabel("accuracy on held-back records")
        axes.grid(axis="x", color=_FAINT, linewidth=0.6)
        axes.margins(y=0.15)
        return _svg(
            figure,
            "comparison",
            "Accuracy of each hospital alone, the federation, and pooled records",
        )


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _svg(figure: Figure, name: str, label: str) -> str:
    """The figure as inline SVG; its ids begin with `name`, so that two in one page do not clash."""
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    svg = target.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns:xlink="[^"]*"| xmlns="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    svg = re.sub(r'( id="| href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
