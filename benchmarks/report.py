"""What was measured, as text for people: tables, budgets, the machine, the noise."""

from __future__ import annotations

import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from figures import Noise, Ratio, bootstrap_ratio, quantile, table
from harness import Contender, Worker
from ours import Footprint, Import

BASES = ("floor", "crun run", "runc run")
COLD, FLOOR = "minicontainer run", "floor, warm"
WARM, HEAP = "Python API, warm", "Python API, 512 MB heap"


@dataclass
class Result:
    """All that was seen in one run of the benchmark."""

    machine: list[str]
    rounds: int
    cold: list[Contender] = field(default_factory=list)
    warm: list[Worker] = field(default_factory=list)
    noise: list[Noise] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # what was not measured, and why
    footprint: Footprint | None = None
    imports: list[Import] = field(default_factory=list)

    def times(self, name: str) -> list[float]:
        """What ``name`` took, run by run, in milliseconds; [] if it was not measured."""
        everyone: list[Contender | Worker] = [*self.cold, *self.warm]
        return next((one.times for one in everyone if one.name == name), [])

    def ratio(self, name: str, base: str) -> Ratio | None:
        """Medians compared; None if one of the two was not measured."""
        return bootstrap_ratio(self.times(name), self.times(base))

    def as_json(self) -> dict[str, Any]:
        """Every single time, for whoever wants to look closer."""
        return {
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "machine": self.machine,
            "rounds": self.rounds,
            "cold_ms": {one.name: one.times for one in self.cold},
            "warm_ms": {one.name: one.times for one in self.warm},
            "failures": {one.name: one.failures for one in self.cold},
            "noise": [noise.line() for noise in self.noise],
            "not_measured": self.missing,
            "footprint": asdict(self.footprint) if self.footprint else None,
            "imports": [asdict(line) for line in self.imports],
            "budgets": [asdict(budget) for budget in budgets(self)],
        }


# ---------------------------------------------------------------------------------- budgets


@dataclass(frozen=True)
class Budget:
    """A promise of the project: ``value`` must not be above (or, if ``least``, below) ``limit``."""

    what: str
    limit: float
    value: float | None
    shown: str
    least: bool = False

    def verdict(self) -> str:
        """met, not met, or not measured."""
        if self.value is None:
            return "not measured"
        kept = self.value >= self.limit if self.least else self.value <= self.limit
        return "met" if kept else "not met"


def budgets(result: Result) -> list[Budget]:
    """The budgets, with what was seen."""

    def ratio(what: str, name: str, base: str, limit: float) -> Budget:
        seen = result.ratio(name, base)
        return Budget(what, limit, seen.value if seen else None, f"{seen}" if seen else "")

    warm, foot = result.times(WARM), result.footprint
    rate = 1e3 * len(warm) / sum(warm) if warm else None
    return [
        ratio("cold CLI / crun run", COLD, "crun run", 1.0),
        ratio("cold CLI / runc run", COLD, "runc run", 0.55),
        ratio("warm API / warm floor", WARM, FLOOR, 1.5),
        Budget("warm containers a second, one process", 130, rate,
               f"{rate:.0f} of {len(warm)}" if rate else "", least=True),
        ratio("warm API, 512 MB heap / small heap", HEAP, WARM, 2.0),
        Budget("peak RSS of the CLI, MB", 20, foot.peak_mb if foot else None,
               f"{foot.peak_mb:.1f}" if foot else ""),
        Budget("wake-ups of the CLI in a second of the container's life", 0,
               foot.wakeups if foot else None, f"{foot.wakeups}" if foot else ""),
    ]  # fmt: skip


# ----------------------------------------------------------------------------------- the text


def report(result: Result) -> str:
    """The whole report."""
    parts = ["\n".join(result.machine)]
    if result.cold:
        parts += ["Cold: a whole process, from spawn to exit\n\n" + cold_table(result)]
    if result.warm:
        parts += ["Warm: containers one after the other, from one process\n\n" + warm_table(result)]
    if result.imports:
        parts += ["Imports of the cold path\n\n" + imports_table(result.imports)]
    parts += ["Budgets\n\n" + budget_table(result)]
    if result.missing:
        parts += ["\n".join(f"not measured: {name}: {why}" for name, why in result.missing.items())]
    parts += ["\n".join(noise.line() for noise in result.noise)]
    parts += ["Ratios are of medians in this run, with a bootstrap 95 % interval."]
    return "\n\n".join(parts)


def cold_table(result: Result) -> str:
    """One line per contender, the fastest first."""
    bases = [base for base in BASES if result.times(base)]
    rows = []
    for one in sorted(result.cold, key=lambda one: quantile(one.times, 0.5)):
        failed = f" ({one.failures} failed)" if one.failures else ""
        rows.append([
            one.name + failed, *_summary(one.times), f"{quantile(one.cpu, 0.5):.1f}",
            *(str(result.ratio(one.name, base) or "") for base in bases),
        ])  # fmt: skip
    head = ["cold, ms", "n", "median", "p90", "min", "cpu", *("/ " + base for base in bases)]
    notes = [f"{one.name}: {one.note}" for one in result.cold if one.note]
    return table(head, rows) + "\n\n" + "\n".join(notes)


def warm_table(result: Result) -> str:
    """One line per worker."""
    rows = [
        [one.name, *_summary(one.times), str(result.ratio(one.name, FLOOR) or "")]
        for one in result.warm
    ]
    return table(["warm, ms", "n", "median", "p90", "min", f"/ {FLOOR}"], rows)


def _summary(times: list[float]) -> list[str]:
    if not times:
        return ["0", "", "", ""]
    numbers = (statistics.median(times), quantile(times, 0.9), min(times))
    return [str(len(times)), *(f"{number:.2f}" for number in numbers)]


def imports_table(imports: list[Import], most: int = 15) -> str:
    """The modules that cost most by themselves; -X importtime's own cost is in the numbers."""
    total = sum(line.own_us for line in imports)
    rows = [
        [line.module, f"{line.own_us / 1e3:.2f}", f"{line.with_children_us / 1e3:.2f}"]
        for line in sorted(imports, key=lambda line: -line.own_us)[:most]
    ]
    rows.append([f"all {len(imports)} modules", f"{total / 1e3:.2f}", ""])
    return table(["module", "own ms", "with its imports"], rows)


def budget_table(result: Result) -> str:
    """Promise, limit, what was seen, verdict."""
    rows = [
        [b.what, ("at least " if b.least else "at most ") + f"{b.limit:g}", b.shown, b.verdict()]
        for b in budgets(result)
    ]
    return table(["budget", "limit", "seen", "verdict"], rows)


def machine(scratch: Path) -> list[str]:
    """What this was measured on: for ratios it matters less, for times it is everything."""
    with open("/proc/self/mountinfo") as mountinfo:
        mounts = [line.partition(" - ") for line in mountinfo]
    kinds = {fields.split()[4]: rest.split()[0] for fields, _, rest in mounts}
    home = next(str(path) for path in (scratch, *scratch.parents) if str(path) in kinds)
    with open("/proc/cpuinfo") as cpuinfo:
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")
        ]
    with open("/proc/meminfo") as meminfo:
        memory = int(meminfo.readline().split()[1]) / 2**20
    return [
        f"{time.strftime('%Y-%m-%d')}, Linux {platform.release()} {platform.machine()}, "
        f"{os.cpu_count()} x {models[0] if models else 'unknown CPU'}, {memory:.0f} GiB",
        f"Python {platform.python_version()}; scratch on {kinds[home]}; "
        f"load when starting {os.getloadavg()[0]:.1f}",
    ]
