"""Whether what a folder or a storage holds under a study's name is that study, and what is kept of it."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lit_t6.sweeps.apart import apart
from lit_t6.sweeps.cells import plain_cells
from lit_t6.sweeps.digest import changes, common, differences, digest
from lit_t6.sweeps.jobs import by_job, jobs_of
from lit_t6.sweeps.ledger import Ledger
from lit_t6.sweeps.same_data import Prepared, check_same_data, recorded
from lit_t6.sweeps.saved_study import STUDY_NAME
from lit_t6.sweeps.study import Study, load_study


def agree(ledger: Ledger, data: Mapping[str, Prepared] | None = None) -> dict[str, str]:
    """Make sure that the storage's study of this name is this one; one that is new there is written down.

    It may have more cells, seeds and trials than the storage knows of, and its data may lie elsewhere, where it was
    written down what data it is.

    Args:
        ledger: of the study.
        data: on which it is to be trained, by cell; None of one that is only looked at.

    Returns:
        Fingerprints of the data, by cell; none of a study of which they were not written down.

    Raises:
        ValueError: it is another one; says what differs.
    """
    study, storage = ledger.study, ledger.storage
    data = data or {}
    theirs = storage.get_study_user_attrs(ledger.study_id)
    known: dict[str, str] = theirs.get("data") or {}
    check_same_data(known, data, study.name)
    if is_new := "digest" not in theirs:  # of an older one nobody can say any more what its data was
        known = _note_data(ledger, known, data)
    places = not known
    mine = {"digest": digest(study, places), "common": json.loads(json.dumps(common(study, places), default=str))}
    if is_new:
        for name, value in mine.items():
            storage.set_study_user_attr(ledger.study_id, name, value)
        theirs = storage.get_study_user_attrs(ledger.study_id)
    if theirs["digest"] != mine["digest"]:
        lines = differences(theirs.get("common") or {}, mine["common"])
        raise ValueError(
            f"the storage holds another study called {study.name!r}: {_told(lines)}. Give this one another name, with "
            f"--name, or go on with the one that was begun."
        )
    others = [
        ledger.jobs[key].cell
        for key, trials in by_job(ledger.trials()).items()
        if key in ledger.jobs
        and any(trial.user_attrs.get("fingerprint", "") not in ledger.jobs[key].fingerprints for trial in trials)
    ]
    if others:
        raise ValueError(
            f"the storage's study {study.name!r} has trained {', '.join(dict.fromkeys(others))} with other settings. "
            f"Give these cells other names, or the study another one, with --name."
        )
    return known if places else _note_data(ledger, known, data)


def _note_data(ledger: Ledger, known: dict[str, str], data: Mapping[str, Prepared]) -> dict[str, str]:
    """Write down in the storage what is not yet known of a study's data; all that is known then."""
    more = {name: found.fingerprint for name, found in data.items() if name not in known}
    if more:
        ledger.storage.set_study_user_attr(ledger.study_id, "data", {**known, **more})
    return {**known, **more}


def kept_study(study: Study, folder: Path, archive: str | None = None) -> Study | None:
    """The study that was begun in a folder; None if none was.

    Args:
        study: that is to go on with it. It may have other cells, seeds and trials.
        folder: of the study.
        archive: out of which it has just come.

    Raises:
        ValueError: it is another one; says what differs.
    """
    if not (folder / STUDY_NAME).is_file():
        return None
    kept = load_study([folder / STUDY_NAME])
    if lines := changes(kept, study, places=not recorded(folder)):
        if (new := _new_options(kept, study)) and (wrong := apart(_unknown_option, study, new)):
            raise ValueError(wrong)
        unknown = ""
        if any("data.path was " in line for line in lines):
            unknown = (
                " It was not written down what data it was begun with, so that has to lie where it lay; a link will do."
            )
        if archive is not None:
            raise ValueError(
                f"{archive}: the study in it is another one: {_told(lines)}. Leave out what differs, or begin another "
                f"study from a file of its own.{unknown}"
            )
        rename = "Give this one another name, with --name,"
        if study.cells is not None and all(line.startswith("cell ") for line in lines) and not _aims_at(study, lines):
            rename = (
                "Give what differs another name among the cells, which keeps all other trials, or this study one, with "
                "--name,"
            )
        raise ValueError(
            f"{folder}: the study that was begun here is another one: {_told(lines)}. {rename} go on with that one by "
            f"`sweep run {folder}`, or remove the folder.{unknown}"
        )
    return kept


def _told(lines: Sequence[str]) -> str:
    return "; ".join(lines[:3]) + (f" (and {len(lines) - 3} more)" if len(lines) > 3 else "")


def _aims_at(study: Study, lines: Sequence[str]) -> bool:
    """Whether the cell by which head counts are solved is one of those that differ."""
    aimed_at = study.match != "none" and study.match_to is None
    return aimed_at and any(line.startswith(f"cell {study.baseline!r}: ") for line in lines)


def _new_options(kept: Study, study: Study) -> set[str]:
    """Options that are not in the study that was begun, and may be misspelt ones that are."""
    were, are = ({*of.options, *(key for cell in plain_cells(of) for key in cell.options)} for of in (kept, study))
    return are - were


def _unknown_option(study: Study, names: Collection[str]) -> str:
    """What `fit` says of options that it does not have; empty if it has them all. Loads PyTorch."""
    from lit_t6.sweeps.checking import unknown_option

    return unknown_option(study, names)


def as_begun(study: Study, folder: Path) -> Study:
    """A study with the baseline by which its head counts were solved: a report may compare with another cell.

    Args:
        study: to report on.
        folder: of the study.
    """
    if study.match == "none" or study.match_to is not None or not (folder / STUDY_NAME).is_file():
        return study
    kept = load_study([folder / STUDY_NAME])
    same = (kept.match, kept.match_to) == (study.match, study.match_to)
    is_there = kept.baseline in [cell.name for cell in plain_cells(study)]
    return replace(study, baseline=kept.baseline) if same and is_there else study


def with_seeds_of(kept: Study | None, study: Study) -> Study:
    """A study as it is to be kept: with the seeds that it was begun with, which may not be run now.

    Args:
        kept: as it was begun; None if it was not.
        study: as it is run now. A search has the one seed that it is given.
    """
    if kept is None or study.search is not None:
        return study
    return replace(study, seeds=tuple(dict.fromkeys((*kept.seeds, *study.seeds))))


def told_of(kept: Study, study: Study, folder: Path) -> Iterator[str]:
    """What to say of a study that goes on with less than it was begun with.

    Args:
        kept: as it was begun.
        study: as it is run now.
        folder: of the study.
    """
    whole = with_seeds_of(kept, study)
    if less := left_out(kept, whole):
        yield less
    if others := [str(seed) for seed in whole.seeds if seed not in study.seeds]:
        yield (
            f"Run now: seed{'s' * (len(study.seeds) > 1)} {', '.join(map(str, study.seeds))}. Kept, and not run now: "
            f"{', '.join(others)}; `sweep run {folder}` runs all of them."
        )


def left_out(before: Study, after: Study) -> str:
    """What to say of trials that a study had when it was begun, and has no longer; empty if there are none."""
    now = {job.key for job in jobs_of(after)}
    gone = [job.key for job in jobs_of(before) if job.key not in now]
    if not gone:
        return ""
    more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
    return (
        f"Left out of the study that was begun: {', '.join(gone[:3])}{more}. What is there of them stays, but `sweep "
        f"status` and `sweep pack` of the folder do not count them until they are asked for again."
    )
