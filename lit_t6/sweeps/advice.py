"""What can be done about trials that failed: trying them again helps some of them alone."""

from lit_t6.sweeps.reading import spelt
from lit_t6.sweeps.status import Overview

_AGAIN = "The same command with --retry_failed true"
_OTHER = "in a study of another --name"


def advice(stands: Overview) -> str:
    """What to say after a study of which trials failed.

    Args:
        stands: how it ended.
    """
    final = [trial for _, each in stands.failed if (trial := each.trial) is not None and trial.user_attrs.get("final")]
    found = {each.status for _, each in stands.failed if each.trial not in final}
    lines = []
    if found & {"failed", "lost"}:
        of = "them" if found <= {"failed", "lost"} and not final else "those that failed or were lost"
        lines.append(f"{_AGAIN} tries {of} again.")
    if "timed_out" in found:
        limit = stands.study.time_limit
        now = f" (now {spelt(limit)})" if limit is not None else ""
        lines.append(
            f"{_AGAIN} goes on with those that timed out, which have their whole time again; --time_limit{now} can be "
            f"raised there."
        )
    if "out_of_memory" in found:
        lines.append(
            f"{_AGAIN} helps those that were out of memory only where more of it is free then, as with fewer "
            f"--workers_per_gpu; else they need smaller settings, {_OTHER}."
        )
    if "diverged" in found:
        lines.append(
            f"Those that diverged would do so again: they need other settings, such as a smaller "
            f"model.optimizer.lr or more warmup_steps, {_OTHER}."
        )
    if final:
        lines.append(
            f"Those without {stands.study.objective.metric} would end so again: the objective has to be a figure that "
            f"these trainings log, {_OTHER}."
        )
    return " ".join(lines)
