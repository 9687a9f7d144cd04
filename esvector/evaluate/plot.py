"""The frontier as a picture: recall against time, one line for each vector type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esvector.errors import ConfigError, require
from esvector.evaluate.frontier import Trial, find_frontier

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esvector.evaluate.tune import TuneReport

__all__ = ["check_picture", "plot_frontier"]

_FORMATS = (".png", ".svg", ".pdf")
# Of Okabe and Ito's palette, which the colour-blind can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"


def check_picture(path: Path) -> None:
    """Raise ConfigError for a file that is no picture, MissingExtraError without matplotlib: before measuring."""
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"{path} is no picture that can be drawn", f"name a file in {', '.join(_FORMATS)}")
    require("evaluate", "matplotlib")


def plot_frontier(report: TuneReport, path: str | Path) -> None:
    """Draw ``report`` into ``path`` (.png, .svg or .pdf).

    Raises ConfigError for another kind of file or one that cannot be written, MissingExtraError without matplotlib.
    """
    path = Path(path)
    check_picture(path)
    # Not pyplot, which keeps figures of the whole process and asks for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    series = _series(report)
    for number, (name, trials) in enumerate(series.items()):
        _draw_series(axes, name, trials, number)
    _draw_goal(axes, report)
    _label(axes, report, [trial for trials in series.values() for trial in trials])
    try:
        figure.savefig(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", "name another file for the plot") from error


def _series(report: TuneReport) -> dict[str, list[Trial]]:
    """Trials by what was searched, in the order in which they were measured."""
    series: dict[str, list[Trial]] = {}
    graphs = {(trial.m, trial.ef_construction) for trial in report.trials}
    for trial in report.trials:
        place = "live index" if trial.live else f"copy of {report.copied:,}"
        graph = f", m {trial.m}, ef {trial.ef_construction}" if len(graphs) > 1 and trial.m else ""
        memory = f"{trial.bytes_per_million / 1e6:,.0f} MB per million"
        series.setdefault(f"{trial.vector_type}{graph} ({place}), {memory}", []).append(trial)
    return series


def _draw_series(axes: Axes, name: str, trials: Sequence[Trial], number: int) -> None:
    colour = _COLOURS[number % len(_COLOURS)]
    best = find_frontier(trials)
    rest = [trial for trial in trials if trial not in best]
    marker = _MARKERS[number % len(_MARKERS)]
    axes.plot(*_points(rest), marker, color=colour, alpha=0.25, markersize=4, markeredgewidth=0)
    below = [trial.recall - trial.interval.low for trial in best]
    above = [trial.interval.high - trial.recall for trial in best]
    axes.errorbar(
        *_points(best),
        yerr=[[max(0.0, gap) for gap in below], [max(0.0, gap) for gap in above]],
        color=colour,
        marker=marker,
        markersize=5,
        linestyle="-" if trials[0].live else "--",
        linewidth=1.4,
        elinewidth=0.9,
        capsize=2,
        label=name,
    )


def _draw_goal(axes: Axes, report: TuneReport) -> None:
    axes.axhline(
        report.goal.recall, color="0.45", linewidth=0.9, linestyle=":", label=f"wanted: {report.goal.recall:g}"
    )
    if (chosen := report.chosen) is None:
        return
    oversample = "" if chosen.oversample is None else f", oversample {chosen.oversample:g}"
    point = (1000 * chosen.latency.p50, chosen.recall)
    axes.plot(*point, "*", color="#F0E442", markeredgecolor="black", markersize=15, zorder=5, label="chosen")
    axes.annotate(
        f"num_candidates {chosen.num_candidates}{oversample}\nrecall {chosen.recall:.3f}, "
        f"p50 {1000 * chosen.latency.p50:.1f} ms, p95 {1000 * chosen.latency.p95:.1f} ms",
        point,
        xytext=(12, -34),
        textcoords="offset points",
        fontsize=8.5,
        bbox={"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "0.7", "alpha": 0.9},
        arrowprops={"arrowstyle": "-", "color": "0.4"},
        zorder=6,
    )


def _label(axes: Axes, report: TuneReport, trials: Sequence[Trial]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    least = min(trial.interval.low for trial in trials)
    bottom = min(least, report.goal.recall)
    axes.set_ylim(bottom - 0.06 * (1.0 - bottom) - 0.002, 1.0 + 0.06 * (1.0 - bottom) + 0.002)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("median time of a search, ms")
    axes.set_ylabel(f"recall@{report.k} (bars: 95 % confidence)")
    axes.set_title(
        f"{report.alias}: recall@{report.k} against time  ({report.documents:,} documents, {report.queries:,} queries)",
        fontsize=11,
        loc="left",
    )
    axes.grid(visible=True, color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _points(trials: Sequence[Trial]) -> tuple[list[Any], list[Any]]:
    return [1000 * trial.latency.p50 for trial in trials], [trial.recall for trial in trials]
