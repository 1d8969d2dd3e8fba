"""A finished run of the very configuration that is to be trained: told, since it may be what was wanted."""

from typing import Any

from lit_t6.training.checkpoint_choice import of_run, steps_done
from lit_t6.training.run_folder import runs_of, saved_checkpoints


def describe_finished_run(config: dict[str, Any]) -> str:
    """Where the newest finished run of this configuration is, and how to go on with it; empty if there is none.

    Args:
        config: all options of `fit`, in plain form. Where the logger's version is named, no new run begins beside it.
    """
    found = next(runs_of(config, finished=True), None)
    if found is None or config["trainer"]["logger"]["init_args"].get("version") is not None:
        return ""
    folder, _ = found
    said = f"{folder} is a finished run of the same settings; this begins a new one."
    saved = sorted(of_run(folder, saved_checkpoints(folder, config)))
    if not saved:
        return said
    last = max(saved, key=steps_done)
    limit = "max_epochs" if config["trainer"]["max_steps"] < 1 else "max_steps"
    more = 2 * (config["trainer"][limit] or 0) or "N"  # as an example
    return f"{said} To go on with it instead, add --ckpt_path {last} --trainer.{limit} {more}."
