"""What a run found: kept in a file that is whole at any time, and what follows from it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lit_t6.bench.facts import check_same, write_json
from lit_t6.bench.peers import OURS

Status = str
"""timed, wrong, failed, left out (it cannot, or was given up) or no memory."""


@dataclass
class Entry:
    """One peer at one point.

    Args:
        num_heads: H.
        batch: B.
        cache: M.
        mechanism: such as "GQA".
        library: whose way it is.
        variant: which of its ways.
        cache_bytes: of the mechanism at the point, without padding.
        status: see `Status`.
        why: what is wrong, or why there is no time.
        ms: milliseconds of a step, the median; the two that follow, fastest and slowest replay.
        fastest_ms: see `ms`.
        slowest_ms: see `ms`.
        sets: sets of inputs that were used in turn.
        from_memory: whether they are larger together than twice the L2.
        error: relative to float64, and what it might be.
        allowed: see `error`.
        preparing_seconds: until the first output: compiling, tuning, plans.
    """

    num_heads: int
    batch: int
    cache: int
    mechanism: str
    library: str
    variant: str
    cache_bytes: int
    status: Status
    why: str | None = None
    ms: float | None = None
    fastest_ms: float | None = None
    slowest_ms: float | None = None
    sets: int = 0
    from_memory: bool = False
    error: float | None = None
    allowed: float | str | None = None
    preparing_seconds: float | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, B and M of the point."""
        return self.num_heads, self.batch, self.cache

    @property
    def name(self) -> str:
        """Mechanism, library and variant."""
        return " ".join(word for word in (self.mechanism, self.library, self.variant) if word)

    @property
    def is_ours(self) -> bool:
        """Whether it is this package's TPA, which all others are compared with."""
        return self.mechanism == "TPA" and self.library == OURS

    @property
    def gb_per_sec(self) -> float:
        """Rate at which the cache was read."""
        return self.cache_bytes / self.ms / 1e6 if self.ms else 0.0


@dataclass
class Results:
    """All that a run found.

    Args:
        settings: what was asked for.
        facts: device, versions, and `commands`, of all runs whose numbers are here, in their order.
        read_rates: GB/s of kernels that only read, by their names.
        entries: what was measured, in that order.
        planned: points of the whole grid.
        stopped: why it ended early, or None.
    """

    settings: dict[str, Any]
    facts: dict[str, Any]
    read_rates: dict[str, float] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    planned: int = 0
    stopped: str | None = None

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """The points of which there is something, sorted."""
        return sorted({entry.shape for entry in self.entries})

    @property
    def without_graphs(self) -> bool:
        """Whether Python started each step."""
        return not self.settings.get("graph", True)

    @property
    def wrong(self) -> list[Entry]:
        """Those with a wrong output; of our own kernels, those that failed too."""
        return [e for e in self.entries if e.status == "wrong" or (e.status == "failed" and e.library == OURS)]

    def best_rate(self) -> tuple[float, str]:
        """GB/s of the kernel that read fastest, and its name."""
        rates = dict(self.read_rates)
        for entry in self.entries:
            if entry.from_memory and entry.ms:
                name = f"{entry.name} at H {entry.num_heads}, batch {entry.batch}, cache {entry.cache:,}"
                rates[name] = entry.gb_per_sec
        if not rates:
            return float("nan"), "nothing"
        name = max(rates, key=rates.__getitem__)
        return rates[name], name

    def ours(self, shape: tuple[int, int, int]) -> Entry | None:
        """This package's TPA at a point, if it was timed."""
        return next((e for e in self.entries if e.shape == shape and e.is_ours and e.ms), None)

    def columns(self) -> list[str]:
        """What is compared with it: the authors' kernel and the other mechanisms, the best way of each."""
        tried = (entry for entry in self.entries if not entry.is_ours and entry.status != "left out")
        return list(dict.fromkeys(_column(entry) for entry in tried))

    def not_tried(self) -> dict[str, str]:
        """Why columns are missing."""
        columns = self.columns()
        left = (entry for entry in self.entries if not entry.is_ours and _column(entry) not in columns)
        return {self.label(_column(entry)): str(entry.why) for entry in left}

    def label(self, column: str) -> str:
        """What a column is called."""
        return {"GQA": f"GQA-{self.settings['kv_groups']}", "TPA upstream": "TPA, authors'"}.get(column, column)

    def best(self, shape: tuple[int, int, int], column: str) -> Entry | None:
        """The fastest of a column at a point; if none was timed, one that says why; None if there is none."""
        found = [e for e in self.entries if e.shape == shape and not e.is_ours and _column(e) == column]
        timed = [e for e in found if e.ms]
        if timed:
            return min(timed, key=lambda e: e.ms or 0.0)
        return min(found, key=lambda e: ("wrong", "failed", "no memory", "left out").index(e.status), default=None)

    def floor_ms(self, entry: Entry) -> float:
        """How long reading a cache takes at the best rate of the run."""
        return entry.cache_bytes / self.best_rate()[0] / 1e6

    def write(self, path: Path) -> None:
        """Write all of it as JSON; what was there is replaced at once or not at all."""
        rate, by = self.best_rate()
        read = {"best_gb_per_sec": rate, "by": by, "kernels_that_only_read": self.read_rates}
        entries = [asdict(e) | ({"floor_ms": self.floor_ms(e)} if e.is_ours else {}) for e in self.entries]
        whole = {
            "settings": self.settings,
            "facts": self.facts,
            "points_planned": self.planned,
            "stopped": self.stopped,
            "read_rate": read,
            "entries": entries,
        }
        write_json(path, whole)

    def take_up(self, path: Path) -> None:
        """Go on from a file of an earlier run.

        Args:
            path: what `write` wrote.

        Raises:
            ValueError: its numbers cannot stand beside those of this run.
        """
        try:
            whole = json.loads(path.read_text())
            rates, entries = whole["read_rate"]["kernels_that_only_read"], whole["entries"]
            facts = whole["facts"]
            theirs = whole["settings"] | facts["versions"] | facts["same"]
            commands = facts["commands"] if "commands" in facts else [facts["command"]]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a file of `bench decode`: {error!r}.") from error
        check_same(path, theirs, self.settings | self.facts["same"])
        for entry in entries:
            entry.pop("floor_ms", None)
        self.facts["commands"] = [*commands, *self.facts["commands"]]
        self.read_rates = rates
        self.entries = [Entry(**entry) for entry in entries if entry["status"] == "timed"]  # others have another try


def _column(entry: Entry) -> str:
    return f"TPA {entry.library}" if entry.mechanism == "TPA" else entry.mechanism
