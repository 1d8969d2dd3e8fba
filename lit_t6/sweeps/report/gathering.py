"""What there is of a study to report on: records of its trials, the time they took, and what is left out."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from lit_t6.sweeps.begun import open_begun
from lit_t6.sweeps.digest import digests
from lit_t6.sweeps.jobs import by_job, jobs_of, seconds_of, standing
from lit_t6.sweeps.records import RECORD, read_record, record_of
from lit_t6.sweeps.report.findings import UNFINISHED, Spent
from lit_t6.sweeps.saved_study import STUDY_NAME
from lit_t6.sweeps.storage import HEARTBEAT_SECONDS, JOURNAL
from lit_t6.sweeps.study import Study, load_study
from lit_t6.training.messages import counted

_MOST_NAMED = 16


@dataclass(frozen=True)
class Gathered:
    """What a storage, or the folders of trials, have of a study.

    Args:
        records: of the trials that have ended, by job.
        spent: by each job, all attempts together; empty without a storage, which alone knows of earlier ones.
        left_out: in words, seeds and cells that are there, and that the study as it is asked for has not; or empty.
    """

    records: Mapping[str, Mapping[str, Any]]
    spent: Mapping[str, Spent] = field(default_factory=dict)
    left_out: str = ""


def gather(study: Study, folder: Path, storage: str | None, typed: bool = False) -> Gathered:
    """The trials of a study: of its storage, or where there is none, of their folders.

    Args:
        study: as it is asked for, which may be less than what was trained.
        folder: of the study.
        storage: its address; None for the journal in the folder.
        typed: whether a person typed the seeds: each of them must have been trained then.

    Raises:
        ValueError: it has not been begun, or with other settings, or not with a seed that was typed, or with none.
    """
    if storage is None and not (folder / JOURNAL).exists() and (found := _of_folders(study, folder, typed)) is not None:
        return found
    ledger = open_begun(study, folder, storage, HEARTBEAT_SECONDS)
    trials = by_job(ledger.trials())
    stands = {key: standing(each, study.retries) for key, each in trials.items()}
    over = {key: each for key, each in stands.items() if each.is_over}
    records = {key: record_of(each.trial, study) for key, each in over.items() if each.trial and key in ledger.jobs}
    ends = {key: over[key].status if key in over else UNFINISHED for key in stands}
    _check_seeds(study, stands, (), typed)
    return Gathered(records, {key: _spent(trials[key]) for key in ledger.jobs if key in trials}, _left_out(study, ends))


def _spent(attempts: Sequence[FrozenTrial]) -> Spent:
    in_vain = [attempt for attempt in attempts if attempt.state == TrialState.FAIL]
    return Spent(sum(map(seconds_of, attempts)), sum(map(seconds_of, in_vain)))


def _of_folders(study: Study, folder: Path, typed: bool) -> Gathered | None:
    """The same from the records in the trials' folders; None where there are none."""
    keys = [path.parent.relative_to(folder).as_posix() for path in sorted(folder.glob(f"*/seed-*/{RECORD}"))]
    read = {key: read_record(folder / key) for key in keys}
    there = {key: record for key, record in read.items() if record is not None and record.get("job") in (None, key)}
    if not there:
        return None
    records = {job.key: there[job.key] for job in jobs_of(study) if job.key in there}
    _check_records(study, folder, records)
    kept = load_study([folder / STUDY_NAME]).seeds if (folder / STUDY_NAME).is_file() else ()
    _check_seeds(study, there, kept, typed)  # trials that have not ended have no record
    return Gathered(
        records, left_out=_left_out(study, {key: str(record.get("outcome")) for key, record in there.items()})
    )


def _check_records(study: Study, folder: Path, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse records of trials whose settings or objective are others than the study's."""
    others = [key for key, record in records.items() if record.get("digest") not in (None, *digests(study))]
    if others:
        raise ValueError(
            f"{folder}: {', '.join(others[:3])} and what else is recorded here were trained with other settings than "
            f"those of {study.name!r}. Report on what was begun, by its folder, without settings."
        )


def _check_seeds(study: Study, keys: Collection[str], begun: Collection[int], typed: bool) -> None:
    """Refuse seeds with which no cell of a study has been begun, where others have. Those that a file names, and that
    are still to be trained, are unfinished.

    Args:
        study: as it is asked for.
        keys: of all jobs that are there.
        begun: seeds that the study was begun with, as its folder says.
        typed: whether a person typed the seeds.
    """
    wanted = {job.key: job.seed for job in jobs_of(study)}
    there = {*begun, *(wanted[key] for key in keys if key in wanted)}
    never = [str(seed) for seed in study.seeds if seed not in there]
    if not keys or not never or (len(never) < len(study.seeds) and not typed):
        return
    seeds = sorted({*begun, *(int(seed) for _, seed in map(_parts, keys) if seed.isdigit())})
    raise ValueError(
        f"seeds: none of the cells was ever trained with {_named('seed', never)}; there are trials with "
        f"{_named('seed', list(map(str, seeds)))}. Report on these, with --seeds, or train the others first, by `sweep "
        f"run`."
    )


def _left_out(study: Study, ends: Mapping[str, str]) -> str:
    """What to say of trials that are there, and that a study as it is asked for has not.

    Args:
        study: as it is asked for.
        ends: what became of each job that is there.
    """
    wanted = {job.key for job in jobs_of(study)}
    by_seed: dict[str, list[str]] = {}
    by_cell: dict[str, list[str]] = {}
    for key, outcome in ends.items():
        cell, seed = _parts(key)
        if key not in wanted:
            of_seed = seed not in map(str, study.seeds)
            (by_seed if of_seed else by_cell).setdefault(seed if of_seed else cell, []).append(outcome)
    seeds = sorted(by_seed, key=lambda seed: (len(seed), seed))
    groups = [("seed", seeds, by_seed), ("cell", list(by_cell), by_cell)]
    said = [f"{_named(what, names)} ({_counts(sum(of.values(), []))})" for what, names, of in groups if names]
    return "; ".join(said)


def _parts(key: str) -> tuple[str, str]:
    """Cell and seed of a job."""
    cell, _, seed = key.rpartition("/seed-")
    return cell, seed


def _counts(outcomes: Sequence[str]) -> str:
    told = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in Counter(outcomes).most_common())
    return f"{counted(len(outcomes), 'trial')}: {told}"


def _named(what: str, names: Sequence[str]) -> str:
    """Seeds or cells by name, not more than can be read."""
    told = ", ".join(f"({name})" if "," in name else name for name in names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} others" if len(names) > _MOST_NAMED else ""
    return f"{what}{'s' * (len(names) != 1)} {told}{more}"
