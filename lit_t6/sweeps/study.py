"""An ablation study: what one YAML file, or several that stack, say is to be trained and compared."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from lit_t6.command_line.complaints import nearest
from lit_t6.sweeps.cells import plain_cells
from lit_t6.sweeps.digest import digest
from lit_t6.sweeps.parameters import Parameter, read_grid, read_search
from lit_t6.sweeps.reading import KINDS, Place, read_files, seconds
from lit_t6.sweeps.settings import Settings, flat_options, read_settings

Match = Literal["none", "parameters"]
REASONS = ("out_of_memory", "diverged", "timed_out", "failed", "lost")
"""Why a trial may have to be tried again."""
RETRIES = {"out_of_memory": 0, "diverged": 0, "timed_out": 0, "failed": 1, "lost": 3}
"""How often, if the study does not say: what would end the same way again is not tried again."""
RECORD = ("val/loss", "perf/tokens_per_sec", "memory/peak_gib")
KEYS = (
    *("name", "question", "configs", "options", *KINDS, "baseline", "seeds", "match", "match_to", "objective"),
    *("record", "sampler", "pruner", "num_trials", "gpus_per_trial", "time_limit", "retries"),
)
SAMPLERS = ("tpe", "random", "qmc", "gp", "cmaes")
PRUNERS = ("none", "median", "percentile", "hyperband", "successive_halving", "threshold")
_NAME = re.compile(r"[\w(][\w.,+=()@ -]{0,99}")


@dataclass(frozen=True)
class Objective:
    """What decides.

    Args:
        metric: tag of a logged figure; its last value counts.
        direction: whether its least or its most is the best.
    """

    metric: str = "val/bits_per_byte"
    direction: Literal["minimize", "maximize"] = "minimize"


@dataclass(frozen=True)
class Chosen:
    """A sampler or a pruner.

    Args:
        name: one of SAMPLERS or PRUNERS.
        options: of Optuna's class.
        every_n_steps: of pruners: optimizer steps from one report to the next at least; 0 for every validation.
        every_n_tokens: the same in tokens.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    every_n_steps: int = 0
    every_n_tokens: int = 0


@dataclass(frozen=True)
class Study:
    """A study; see `configs/sweep/rank.yaml` for how one is written.

    Args:
        files: of the study.
        name: its own, and its folder's.
        question: what it asks, in a line.
        configs: YAML files of `fit` for every trial; later ones win.
        options: of `fit`, for every trial, dotted, such as options.model.d_model.
        cells: what is compared, by name, each with its options of `fit`; None where a grid or a search says it.
        grid: parameters whose every combination is a cell.
        search: parameters whose values a sampler chooses.
        baseline: the cell that others are compared with; empty for none.
        seeds: with each of which each cell is trained, such as 0,1,2.
        match: "parameters" for head counts solved so that all cells have as many weights as the baseline.
        match_to: as many as this instead, in the whole model.
        objective: what decides: metric, and direction, minimize or maximize.
        record: tags of further figures to keep, the last value of each.
        sampler: chooses the trials of a search: tpe, random, qmc, gp or cmaes.
        pruner: ends trials that do badly: none, median, percentile, hyperband, successive_halving or threshold.
        num_trials: how many trials a search has.
        gpus_per_trial: GPUs of a trial; several train it with DDP.
        time_limit: seconds that a trial may take, start-up and all its attempts together (a file may say 20m); None for
            no limit. After one that took too long, and where a person asks for another, they are counted anew.
        retries: how often a trial is tried again, by reason, such as retries.out_of_memory.
    """

    files: tuple[Path, ...]
    name: str
    question: str = ""
    configs: tuple[Path, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[str, Settings] | None = None
    grid: tuple[Parameter, ...] | None = None
    search: tuple[Parameter, ...] | None = None
    baseline: str = ""
    seeds: tuple[int, ...] = (0,)
    match: Match = "none"
    match_to: int | None = None
    objective: Objective = Objective()
    record: tuple[str, ...] = RECORD
    sampler: Chosen = Chosen("tpe")
    pruner: Chosen = Chosen("none")
    num_trials: int = 20
    gpus_per_trial: int = 1
    time_limit: float | None = None
    retries: Mapping[str, int] = field(default_factory=lambda: dict(RETRIES))

    def digest(self) -> str:
        """A fingerprint of what decides the results of each trial, the cells apart; see `lit_t6.sweeps.digest`."""
        return digest(self)

    @property
    def num_runs(self) -> int:
        """Trials in all: cells times seeds, or those of the search."""
        return self.num_trials if self.search else len(list(plain_cells(self))) * len(self.seeds)


def load_study(paths: Sequence[str | Path], overrides: Mapping[str, Any] | None = None) -> Study:
    """Read a study.

    What `fit` thinks of its options is `lit_t6.sweeps.checking.check_study`'s question, which takes seconds to ask.

    Args:
        paths: its file, or several that stack: options, objective and retries setting by setting, of all other keys
            the last file's value.
        overrides: settings that were typed, over all files, such as {"num_trials": 5, "options.trainer.max_steps": 9}.

    Raises:
        ValueError: a file that is not there, an unknown key, or a value that it cannot have.
    """
    found = read_files(paths, overrides or {})
    for key, place in found.items():
        if key not in KEYS:
            raise ValueError(
                f"{place.source}: a study has no setting {key!r}{nearest(str(key), KEYS)} There are {', '.join(KEYS)}."
            )
    at = {key: found.get(key, Place(None, key, str(paths[-1]))) for key in KEYS}
    study = Study(
        files=tuple(map(Path, paths)),
        name=_name(at["name"], Path(paths[0]).stem),
        question=at["question"].text(),
        configs=at["configs"].files(),
        options=flat_options(at["options"]),
        cells=_cells(at["cells"]) if "cells" in found else None,
        grid=read_grid(at["grid"]) if "grid" in found else None,
        search=read_search(at["search"]) if "search" in found else None,
        baseline=_baseline(at["baseline"]),
        seeds=_seeds(at["seeds"]),
        match=at["match"].choice(get_args(Match), "none"),  # type: ignore[arg-type]  # one of them
        match_to=None if at["match_to"].value is None else at["match_to"].integer(0),
        objective=_objective(at["objective"]),
        record=_record(at["record"]),
        sampler=_chosen(at["sampler"], SAMPLERS, "tpe"),
        pruner=_chosen(at["pruner"], PRUNERS, "none"),
        num_trials=at["num_trials"].integer(20),
        gpus_per_trial=at["gpus_per_trial"].integer(1),
        time_limit=seconds(at["time_limit"]),
        retries=_retries(at["retries"]),
    )
    _check_together(study, at)
    return study


def _name(place: Place, default: str) -> str:
    name = place.text(default)
    if not _NAME.fullmatch(name):
        raise place.error("the name of a folder: letters, digits and . , + = ( ) @ - _ alone")
    return name


def _cells(place: Place) -> dict[str, Settings]:
    given = place.mapping("cells, each a name with its options below it")
    if not given:
        raise place.error("cells, each a name with its options below it")
    cells: dict[str, Settings] = {}
    for key, below in given.items():
        if isinstance(key, bool) or key is None:
            raise ValueError(f"{place.source}: cells: {key!r} is how YAML reads a cell's name; write it in quotes.")
        name = str(key)
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{place.source}: cells: {name!r} cannot be the name of a folder; letters, digits, spaces and "
                f". , + = ( ) @ - _ can."
            )
        cells[name] = read_settings(Place(below, f"cells.{name}", place.source))
    return cells


def _baseline(place: Place) -> str:
    return place.text() if place.value is None or isinstance(place.value, str) else str(place.value)


def _seeds(place: Place) -> tuple[int, ...]:
    if place.value is not None and not isinstance(place.value, list):
        raise place.error("a list of seeds, such as [0, 1, 2]")
    seeds = place.listed("whole numbers of at least 0, such as [0, 1, 2]", lambda seed: type(seed) is int and seed >= 0)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{place.where}: a seed stands there twice: {seeds}.")
    if place.value is not None and not seeds:
        raise place.error("at least one seed")
    return tuple(seeds) or (0,)


def _objective(place: Place) -> Objective:
    place = Place({"metric": place.value}, "objective", place.source) if isinstance(place.value, str) else place
    place.known(("metric", "direction"))
    metric = place.at("metric").text(Objective.metric)
    direction = place.at("direction").choice(("minimize", "maximize"), "minimize")
    return Objective(metric, direction)  # type: ignore[arg-type]  # one of them


def _record(place: Place) -> tuple[str, ...]:
    tags = place.listed("tags of figures, such as [val/loss, perf/tokens_per_sec]", lambda tag: isinstance(tag, str))
    return RECORD if place.value is None else tuple(dict.fromkeys(tags))


def _chosen(place: Place, names: Sequence[str], default: str) -> Chosen:
    place = Place({"name": place.value}, place.key, place.source) if isinstance(place.value, str) else place
    options = {str(key): value for key, value in place.mapping("name: and its options").items()}
    name = place.at("name").choice(names, default)
    every = {unit: options.pop(unit, None) for unit in ("every_n_steps", "every_n_tokens") if place.key == "pruner"}
    counts = {unit: Place(value, f"{place.key}.{unit}", place.source).integer(0) for unit, value in every.items()}
    if all(counts.values()) and counts:
        raise ValueError(f"{place.source}: pruner: reports by steps or by tokens; leave one of every_n_… out.")
    options.pop("name", None)
    return Chosen(name, options, **counts)


def _retries(place: Place) -> dict[str, int]:
    if isinstance(place.value, dict):
        place.known(REASONS)
        return {reason: place.at(reason).integer(RETRIES[reason], 0) for reason in REASONS}
    if place.value is None:
        return dict(RETRIES)
    return dict.fromkeys(REASONS, place.integer(0, 0))


def _check_together(study: Study, at: Mapping[str, Place]) -> None:
    """Refuse settings that do not go together."""
    source = str(study.files[-1])
    if study.cells is None and study.grid is None and study.search is None:
        raise ValueError(f"{source}: nothing is varied; say it under one of {', '.join(KINDS)}.")
    names = [cell.name for cell in plain_cells(study)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{source}: grid: two cells would be called {twice[0]!r}.")
    if too_long := [name for name in names if not _NAME.fullmatch(name)]:
        raise ValueError(
            f"{source}: grid: {too_long[0]!r} is too long for the name of a folder; give the parameters short names, "
            f"with option: what each of them is."
        )
    if study.search is not None:
        _check_search(study, at)
        return
    for key in ("num_trials", "sampler"):
        if at[key].value is not None:
            raise ValueError(f"{at[key].source}: {key} is of a search; cells are all trained, once with each seed.")
    if study.baseline and study.baseline not in names:
        raise ValueError(
            f"{at['baseline'].where}: {study.baseline!r} is not a cell{nearest(study.baseline, names)} "
            f"There are {', '.join(names)}."
        )
    if study.match == "parameters" and not study.baseline and study.match_to is None:
        raise ValueError(
            f"{at['match'].source}: match: parameters needs baseline, the cell whose number of parameters all are to "
            f"have, or match_to, that number."
        )
    _check_match_to(study, at)


def _check_match_to(study: Study, at: Mapping[str, Place]) -> None:
    if study.match_to is not None and study.match == "none":
        raise ValueError(f"{at['match_to'].source}: match_to is a number of parameters; it needs match: parameters.")


def _check_search(study: Study, at: Mapping[str, Place]) -> None:
    if study.baseline:
        raise ValueError(f"{at['baseline'].source}: baseline is one of a study's cells; a search has none.")
    if len(study.seeds) > 1:
        raise ValueError(
            f"{at['seeds'].where}: a search trains each setting once, so it takes one seed, got "
            f"{list(study.seeds)}. Train the best ones with several as the cells of another study."
        )
    if study.match == "parameters" and study.match_to is None:
        raise ValueError(f"{at['match'].source}: match: parameters needs match_to, a number: a search has no baseline.")
    _check_match_to(study, at)
