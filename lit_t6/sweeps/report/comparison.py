"""Which cells the seeds can tell apart: from the best one, and along the front of objective and cache."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from lit_t6.sweeps.report.findings import CellFindings, Findings
from lit_t6.sweeps.report.statistics import LEVEL, holm, paired


@dataclass(frozen=True)
class BesideBest:
    """The other cells that have a value, by what a paired test says of each and the best one.

    Args:
        worse: told apart from the best, at the level of `LEVEL` after Holm's correction.
        alike: not told apart.
        untested: fewer than two seeds in common with the best.
        tests: comparisons for whose number p is corrected: of all cells with each other.
    """

    worse: tuple[str, ...]
    alike: tuple[str, ...]
    untested: tuple[str, ...]
    tests: int


@dataclass(frozen=True)
class Front:
    """The cells that no other one beats in both, objective and bytes cached of a token, by their means.

    Args:
        members: fewest bytes first.
        doubtful: members that are not told apart from some cell that caches no more bytes, which may be as good.
        untested: other members that have fewer than two seeds in common with some cell that caches no more bytes.
        tests: comparisons for whose number p is corrected; 0 where too few seeds are in common.
    """

    members: tuple[CellFindings, ...]
    doubtful: frozenset[str]
    untested: frozenset[str]
    tests: int


def beside_best(found: Findings) -> BesideBest:
    """The best cell against each other one; empty where there is no second.

    Which cell is the best is known by the values that are tested: any pair might have become one of these, so p is
    corrected for all. For those of the best alone, one of ten equal cells would be told apart twice as often as stated.
    """
    ranked = found.ranked()
    told = _told(found, list(itertools.combinations(ranked, 2)))
    pairs = list(zip(ranked[1:], told, strict=False))  # those of the best come first
    worse, alike, untested = (tuple(cell.name for cell, each in pairs if each is kind) for kind in (True, False, None))
    return BesideBest(worse, alike, untested, sum(better is not None for better in told))


def front_of(found: Findings) -> Front:
    """The front, and which of its members are sure: better than each cell that caches no more, beyond the seeds' noise.

    Bytes are computed, not measured; the objective alone has noise.
    """
    members = found.pareto()
    pairs = [(member, rival) for member in members for rival in _no_larger(found, member)]
    told = _told(found, pairs)
    doubtful, untested = (
        frozenset(member.name for (member, _), better in zip(pairs, told, strict=True) if better is kind)
        for kind in (False, None)
    )
    return Front(tuple(members), doubtful, untested - doubtful, sum(better is not None for better in told))


def _no_larger(found: Findings, member: CellFindings) -> list[CellFindings]:
    sizes = {cell.name: cell.fact("cache_bytes_per_token") for cell in found.ranked()}
    return [
        cell
        for cell in found.ranked()
        if cell is not member and sizes[cell.name] is not None and sizes[cell.name] <= sizes[member.name]
    ]


def _told(found: Findings, pairs: Sequence[tuple[CellFindings, CellFindings]]) -> list[bool | None]:
    """Whether the first of each pair is better beyond noise, corrected for all pairs; None of what is not tested."""
    sign = 1 if found.study.objective.direction == "minimize" else -1
    differences = [paired(one.by_seed, other.by_seed) for one, other in pairs]
    corrected = holm({n: each.p for n, each in enumerate(differences) if each is not None and each.p is not None})
    return [
        corrected[place] < LEVEL and sign * each.of.mean < 0 if each is not None and place in corrected else None
        for place, each in enumerate(differences)
    ]
