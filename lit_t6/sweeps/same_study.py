"""Whether what a storage holds under a study's name is that study."""

import json

from lit_t6.sweeps.digest import common
from lit_t6.sweeps.jobs import by_job, jobs_of
from lit_t6.sweeps.ledger import Ledger
from lit_t6.sweeps.study import Study


def agree(ledger: Ledger) -> None:
    """Make sure that the storage's study of this name is this one; one that is new there is written down.

    It may have more cells, seeds and trials than the storage knows of.

    Raises:
        ValueError: it is another one; says what differs.
    """
    study, storage = ledger.study, ledger.storage
    mine = json.loads(json.dumps({"digest": study.digest(), "common": common(study)}, default=str))
    theirs = storage.get_study_user_attrs(ledger.study_id)
    if "digest" not in theirs:
        for name, value in mine.items():
            storage.set_study_user_attr(ledger.study_id, name, value)
        theirs = storage.get_study_user_attrs(ledger.study_id)
    if theirs["digest"] != mine["digest"]:
        before, now = theirs.get("common") or {}, mine["common"]
        differ = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        raise ValueError(
            f"the storage holds another study called {study.name!r}: its {', '.join(differ)} differ. Give this one "
            f"another name, with --name, or go on with the one that was begun."
        )
    others = [
        ledger.jobs[key].cell
        for key, trials in by_job(ledger.trials()).items()
        if key in ledger.jobs
        and any(trial.user_attrs.get("fingerprint", "") != ledger.jobs[key].fingerprint for trial in trials)
    ]
    if others:
        raise ValueError(
            f"the storage's study {study.name!r} has trained {', '.join(dict.fromkeys(others))} with other settings. "
            f"Give these cells other names, or the study another one, with --name."
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
