"""Figures: medians and quantiles, ratios with an interval, the machine's noise, tables.

Standard library only.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")

# ------------------------------------------------------------------------------ statistics


def quantile(values: Iterable[float], q: float) -> float:
    """The ``q``-quantile (0 to 1) of ``values``, linear between neighbours; NaN for no values."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    place = (len(ordered) - 1) * q
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True)
class Ratio:
    """median(a)/median(b), and the interval that holds it with 95 % confidence."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}-{self.high:.2f}]"


def bootstrap_ratio(
    a: Sequence[float], b: Sequence[float], resamples: int = 1000, seed: int = 1
) -> Ratio | None:
    """The ratio of medians of ``a`` and ``b``; None if one of them is empty.

    The interval is Efron's percentile bootstrap: draw both samples again from themselves, with
    replacement, ``resamples`` times, and keep the middle 95 % of the ratios so seen.
    """
    if not a or not b:
        return None
    rng = random.Random(seed)
    ratios = [
        statistics.median(rng.choices(a, k=len(a))) / statistics.median(rng.choices(b, k=len(b)))
        for _ in range(resamples)
    ]
    value = statistics.median(a) / statistics.median(b)
    return Ratio(value, quantile(ratios, 0.025), quantile(ratios, 0.975))


# --------------------------------------------------------------------------- machine's noise


def _cpu_ticks() -> tuple[int, int, int]:
    """proc_stat(5), first line: clock ticks of all CPUs in total, idle, stolen by a hypervisor."""
    with open("/proc/stat") as stat:
        ticks = [int(word) for word in stat.readline().split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4], ticks[7]


def spin() -> float:
    """Milliseconds for a fixed amount of work: on a calm machine always the same."""
    start = time.perf_counter_ns()
    x = 0
    for i in range(60_000):
        x += i & 7
    return (time.perf_counter_ns() - start) / 1e6


class Noise:
    """What else the machine did meanwhile: ``with Noise() as noise: ...; print(noise.line())``."""

    def __enter__(self) -> Self:
        self.spins: list[float] = []
        self._ticks, self._time, self._ours = _cpu_ticks(), time.monotonic(), sum(os.times()[:4])
        return self

    def __exit__(self, *_: object) -> None:
        total, idle, stolen = (
            now - then for now, then in zip(_cpu_ticks(), self._ticks, strict=True)
        )
        total = max(total, 1)
        ours = (sum(os.times()[:4]) - self._ours) * TICKS
        self.seconds = time.monotonic() - self._time
        self.busy = 100 * (total - idle) / total
        self.others = 100 * max(0.0, total - idle - ours) / total
        self.stolen = 100 * stolen / total

    def tick(self) -> None:
        """Take one probe; call it once a round."""
        self.spins.append(spin())

    @property
    def spread(self) -> float:
        """p90/median of the probes: 1.0 is a calm machine, above 1.1 distrust small differences."""
        return quantile(self.spins, 0.9) / quantile(self.spins, 0.5) if self.spins else 1.0

    def line(self) -> str:
        """One line for below a table."""
        return (
            f"noise: {self.seconds:.0f} s, CPUs {self.busy:.0f} % busy "
            f"({self.others:.0f} % not by what was measured), {self.stolen:.1f} % stolen, "
            f"fixed work p90/median {self.spread:.2f}"
            + (" - a noisy machine: trust ratios, not times" if self.spread > 1.1 else "")
        )


# ---------------------------------------------------------------------------------- tables


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, numbers to the right."""
    widths = [max(3, *(len(line[i]) for line in [head, *rows])) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *(line(row) for row in rows)])
