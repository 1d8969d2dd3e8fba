"""What is kept of a trial beside the storage: a file in its folder, for reports, and in case the storage is lost."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from lit_t6.sweeps.digest import digests
from lit_t6.sweeps.jobs import DONE, Job, outcome_of
from lit_t6.sweeps.study import Study
from lit_t6.whole_files import replace_text

RECORD = "trial.json"
METRICS = "metrics.json"
"""What the training itself writes: its last figures."""
TAKEN_OVER = "taken_over"
"""Attribute of a trial that was finished in a storage that is lost."""
_SAID = ("cell", "seed", "options", "configs", "reason", "step", "attempts", "seconds", "times", "metrics", "facts")
_ALSO = ("remark", "worker", "versions", "folder", "fingerprint")


def record_of(trial: FrozenTrial, study: Study) -> dict[str, Any]:
    """What is kept of a trial that has ended.

    Args:
        trial: as the storage has it.
        study: to which it belongs.
    """
    said = trial.user_attrs
    return {
        "study": study.name,
        "digest": study.digest(),
        "job": said.get("job"),
        "outcome": outcome_of(trial),
        "objective": study.objective.metric,
        "value": finite(trial.value) if trial.values else None,
        **{name: said.get(name) for name in (*_SAID, *_ALSO)},
        "number": trial.number,
        "params": trial.params,
        "distributions": {name: distribution_to_json(each) for name, each in trial.distributions.items()},
        "reports": {str(step): finite(value) for step, value in trial.intermediate_values.items()},
    }


def write_record(folder: Path, trial: FrozenTrial, study: Study) -> None:
    """Write the record of a trial into its folder, all or nothing.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / RECORD, json.dumps(record_of(trial, study), indent=1, ensure_ascii=False) + "\n")


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in a folder; None if there is none that can be read."""
    return _read(folder / RECORD)


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """What the training in a folder said last; None if it said nothing."""
    return _read(folder / METRICS)


def _read(path: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None


def restored(folder: Path, study: Study, job: Job) -> FrozenTrial | None:
    """The finished trial that a folder's record tells of; None if there is none, or of another study.

    It waits to be taken over, and holds, under `TAKEN_OVER`, how it is to end then.

    Args:
        folder: of the job.
        study: to which it must belong.
        job: that it must be of.
    """
    record = read_record(folder)
    if record is None or record.get("outcome") not in DONE or record.get("digest") not in digests(study):
        return None
    if record.get("job") != job.key or (record.get("fingerprint") or "") not in job.fingerprints:
        return None
    said: Mapping[str, Any] = {name: record[name] for name in (*_SAID, *_ALSO) if record.get(name) is not None}
    ends = {"outcome": record["outcome"], "value": record.get("value"), "worker": record.get("worker")}
    return create_trial(
        state=TrialState.WAITING,
        params=record.get("params") or {},
        distributions={name: json_to_distribution(text) for name, text in (record.get("distributions") or {}).items()},
        user_attrs={**said, "job": job.key, TAKEN_OVER: ends},
        intermediate_values={
            int(step): math.nan if value is None else value for step, value in (record.get("reports") or {}).items()
        },
    )


def finite(value: float | None) -> float | None:
    """A number that JSON has; None instead of NaN and infinity."""
    return value if value is not None and math.isfinite(value) else None
