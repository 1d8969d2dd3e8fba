"""What a run found: kept in a file that is whole at any time, and what follows from it.

Letters: B sequences of a batch, T tokens of each, C model width, V vocabulary.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lit_t6.bench.facts import check_same, write_json
from lit_t6.bench.training.case import OURS, UPSTREAM, Case

Group = tuple[int, int, int, int, int]
"""What models that are compared have in common: C, layers, V, B and T."""


@dataclass
class Entry:
    """One case.

    Args:
        name: of the model, such as "medium-tpa".
        code: `OURS` or `UPSTREAM`.
        attention: its mechanism and what was chosen of it.
        num_heads: H.
        d_model: C.
        num_layers: L.
        vocab_size: V.
        parameters: weights of the model, the tied ones once.
        batch: B.
        seq_len: T.
        status: timed, wrong, failed or no memory.
        why: what is wrong, or why there is no time.
        step_ms: milliseconds of a step, the median; the two that follow, fastest and slowest step.
        fastest_ms: see `step_ms`.
        slowest_ms: see `step_ms`.
        tokens_per_sec: by the median.
        mfu: three times `T6Config.flops_per_token`, over the dense bfloat16 peak; null where that is not known.
        peak_gib: largest memory of tensors in the timed steps; of the whole process on a CPU.
        first_step_seconds: of the first step, compiling included.
        graphs: that torch.compile made in all.
        late_graphs: those of them after the second step.
        graph_breaks: of torch.compile.
        loss: of the step that was checked, in nats.
        exact_loss: the same, computed in float64.
        gradient_error: of all gradients together, relative to float64; null of the authors' code.
        reference_gradient_error: the same of the reference in the precision of the step.
        log: end of the output of a process that gave no time.
    """

    name: str
    code: str
    attention: str
    num_heads: int
    d_model: int
    num_layers: int
    vocab_size: int
    parameters: int
    batch: int
    seq_len: int
    status: str
    why: str | None = None
    step_ms: float | None = None
    fastest_ms: float | None = None
    slowest_ms: float | None = None
    tokens_per_sec: float | None = None
    mfu: float | None = None
    peak_gib: float | None = None
    first_step_seconds: float | None = None
    graphs: int | None = None
    late_graphs: int | None = None
    graph_breaks: int | None = None
    loss: float | None = None
    exact_loss: float | None = None
    gradient_error: float | None = None
    reference_gradient_error: float | None = None
    log: str | None = None

    @classmethod
    def of(cls, case: Case, found: dict[str, Any]) -> "Entry":
        """The entry of a case.

        Args:
            case: what was measured.
            found: what `process.run_case` returned.
        """
        config = case.model_config
        return cls(
            *(case.name, case.code, config.attention.label, config.attention.heads()),
            *(config.d_model, config.num_layers, config.vocab_size, config.num_parameters(), case.batch, case.seq_len),
            **found,
        )

    @property
    def key(self) -> tuple[str, str, int, int]:
        """As `Case.key`."""
        return self.name, self.code, self.batch, self.seq_len

    @property
    def group(self) -> Group:
        """See `Group`."""
        return self.d_model, self.num_layers, self.vocab_size, self.batch, self.seq_len

    @property
    def label(self) -> str:
        """Model and owner of the code in words."""
        whose = "ours" if self.code == OURS else "the authors'"
        return f"{self.name}, {whose}, {self.batch} × {self.seq_len:,}"


@dataclass
class Results:
    """All that a run found.

    Args:
        settings: what was asked for, of all cases.
        facts: device, versions, and `commands`, of all runs whose numbers are here, in their order.
        entries: what was measured, in that order.
        planned: cases.
        left_out: names of models that the authors' code does not have.
        stopped: why it ended early, or None.
    """

    settings: dict[str, Any]
    facts: dict[str, Any]
    entries: list[Entry] = field(default_factory=list)
    planned: int = 0
    left_out: list[str] = field(default_factory=list)
    stopped: str | None = None

    @property
    def groups(self) -> list[Group]:
        """The groups of which there is something, sorted."""
        return sorted({entry.group for entry in self.entries})

    @property
    def wrong(self) -> list[Entry]:
        """Those that are wrong; of our own code, those that failed too."""
        return [e for e in self.entries if e.status == "wrong" or (e.status == "failed" and e.code == OURS)]

    def of_group(self, group: Group) -> list[Entry]:
        """The entries of a group, ours before the authors' of each model."""
        members = [entry for entry in self.entries if entry.group == group]
        names = list(dict.fromkeys(entry.name for entry in members))
        return sorted(members, key=lambda entry: (names.index(entry.name), entry.code != OURS))

    def over_upstream(self, entry: Entry) -> float | None:
        """How many times the tokens a second of the authors' code for the same model, if both are known."""
        return self._ratio(entry, lambda e: e.key[:1] + e.key[2:] == entry.key[:1] + entry.key[2:], UPSTREAM)

    def over_mha(self, entry: Entry) -> float | None:
        """How many times the tokens a second of our MHA in the group, if both are known."""
        return self._ratio(entry, lambda e: e.group == entry.group and e.attention == "MHA", OURS)

    def _ratio(self, entry: Entry, fits: Any, code: str) -> float | None:
        for other in self.entries:
            if other is not entry and other.code == code and fits(other):
                if entry.tokens_per_sec and other.tokens_per_sec:
                    return entry.tokens_per_sec / other.tokens_per_sec
                return None
        return None

    def write(self, path: Path) -> None:
        """Write all of it as JSON; what was there is replaced at once or not at all."""
        ratios = ({"over_upstream": self.over_upstream(e), "over_mha": self.over_mha(e)} for e in self.entries)
        whole = {
            "settings": self.settings,
            "facts": self.facts,
            "cases_planned": self.planned,
            "not_of_upstream": self.left_out,
            "stopped": self.stopped,
            "entries": [asdict(e) | ratio for e, ratio in zip(self.entries, ratios, strict=True)],
        }
        write_json(path, whole)

    def take_up(self, path: Path) -> None:
        """Go on from a file of an earlier run.

        Args:
            path: what `write` wrote.

        Raises:
            ValueError: its numbers cannot stand beside those of this run.
        """
        known = {f.name for f in fields(Entry)}
        try:
            whole = json.loads(path.read_text())
            facts, commands = whole["facts"], whole["facts"]["commands"]
            theirs = {"recompute": "none"} | whole["settings"] | facts["same"]
            entries = [Entry(**{key: e[key] for key in e if key in known}) for e in whole["entries"]]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a file of `bench train`: {error!r}.") from error
        check_same(path, theirs, self.settings | self.facts["same"])
        self.facts["commands"] = [*commands, *self.facts["commands"]]
        self.facts["upstream_sha256"] = facts["upstream_sha256"] | self.facts["upstream_sha256"]
        self.entries = [entry for entry in entries if entry.status == "timed"]  # others have another try
