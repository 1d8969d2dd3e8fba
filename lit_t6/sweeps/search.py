"""A search: a sampler chooses settings, ranks only where the mechanism has them, and a pruner ends the bad ones."""

import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from lit_t6.sweeps.cells import Cell, cell_of, matched, name_of
from lit_t6.sweeps.parameters import Parameter, Value
from lit_t6.sweeps.study import Chosen, Study

_SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "qmc": optuna.samplers.QMCSampler,
    "gp": optuna.samplers.GPSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
}
_NEEDS = {"qmc": "scipy", "gp": "scipy", "cmaes": "cmaes"}
"""Packages that samplers load when they first choose, and that come with them only if asked for."""
_PRUNERS: dict[str, Callable[..., BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "threshold": optuna.pruners.ThresholdPruner,
}


def suggest(study: Study, trial: optuna.Trial, name: str | None = None) -> Cell:
    """The setting that a trial of a search is to try.

    Parameters are asked for in the order of the file, each only where its condition holds, so that Optuna knows of
    those alone that a trial has.

    Args:
        study: with a search.
        trial: of Optuna.
        name: of the cell; "trial-007" after the trial's number if not given.

    Returns:
        The cell, its head count solved if `match` asks for it.

    Raises:
        ValueError: no head count will do.
    """
    chosen: dict[str, Value] = {}
    for parameter in study.search or ():
        if parameter.is_there(chosen):
            chosen[parameter.name] = _ask(trial, parameter)
    return matched(study, (cell_of(name or f"trial-{trial.number:03}", study.search or (), chosen),))[0]


def _ask(trial: optuna.Trial, parameter: Parameter) -> Value:
    name, log = parameter.name, parameter.log
    if parameter.kind == "categorical":
        return trial.suggest_categorical(name, parameter.choices)
    if parameter.kind == "int":
        return trial.suggest_int(name, int(parameter.low), int(parameter.high), step=int(parameter.step or 1), log=log)
    return trial.suggest_float(name, parameter.low, parameter.high, step=parameter.step, log=log)


def probes(study: Study) -> tuple[Cell, ...]:
    """Settings at the borders of a search: each choice and each least and greatest number, with the others once at
    their first choice or least number, once at their first choice or greatest.

    What is wrong with an option, or a mechanism without it, shows in one of these; what is large or slow, too. Head
    counts are as written, not solved for `match`.
    """
    parameters = study.search or ()
    found: dict[str, Cell] = {}
    for parameter in parameters:
        for value in parameter.extremes():
            for greatest in (False, True):
                chosen = _complete(parameters, _with_conditions(parameters, parameter, value), greatest)
                name = name_of(parameters, chosen)
                found.setdefault(name, cell_of(name, parameters, chosen))
    return tuple(found.values())


def _with_conditions(parameters: tuple[Parameter, ...], parameter: Parameter, value: Value) -> dict[str, Value]:
    """A value, and those of others under which it is there."""
    by_name = {other.name: other for other in parameters}
    found: dict[str, Value] = {}
    for other, values in parameter.when.items():
        found |= _with_conditions(parameters, by_name[other], values[0])
    return {**found, parameter.name: value}


def _complete(parameters: tuple[Parameter, ...], fixed: Mapping[str, Value], greatest: bool) -> dict[str, Value]:
    chosen: dict[str, Value] = {}
    for parameter in parameters:
        if parameter.name in fixed:
            chosen[parameter.name] = fixed[parameter.name]
        elif parameter.is_there(chosen):
            numbers = parameter.kind != "categorical"
            chosen[parameter.name] = parameter.extremes()[-1 if greatest and numbers else 0]
    return chosen


def build_sampler(study: Study, worker: int = 0) -> BaseSampler:
    """The sampler of a search.

    Args:
        study: its `sampler` may hold a seed.
        worker: number of the process that asks, added to the seed: equal ones would choose equal settings at first.

    Raises:
        ValueError: options that it does not have, or a package that it needs.
    """
    options = dict(study.sampler.options)
    needed = _NEEDS.get(study.sampler.name)
    if needed is not None and find_spec(needed) is None:
        raise ValueError(
            f"{study.files[-1]}: sampler: {study.sampler.name} needs the package {needed}, which is not installed: pip "
            f"install {needed}, or take tpe or random."
        )
    if isinstance(options.get("seed"), int):
        options["seed"] += worker
    if study.sampler.name == "tpe":
        options = {"constant_liar": True, **options}  # keeps away from what other workers are trying
    if study.sampler.name == "tpe" and any(parameter.when for parameter in study.search or ()):
        options = {"multivariate": True, "group": True, **options}  # parameters that come and go, learnt together
    return _build(study, "sampler", _SAMPLERS, study.sampler, options)


def build_pruner(study: Study) -> BasePruner:
    """The pruner of a study; one that never prunes where none is asked for.

    Raises:
        ValueError: options that it does not have.
    """
    return _build(study, "pruner", _PRUNERS, study.pruner, dict(study.pruner.options))


def _build(
    study: Study, key: str, classes: Mapping[str, Callable[..., Any]], chosen: Chosen, options: dict[str, Any]
) -> Any:
    where = f"{study.files[-1]}: {key}: {chosen.name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # it was asked for
            return classes[chosen.name](**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())} Its options are those of Optuna's class.") from error
