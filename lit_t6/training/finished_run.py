"""A finished run of the very configuration that is to be trained: told, since it may be what was wanted."""

from typing import Any

from lit_t6.training.checkpoint_choice import newest_whole, of_run, read_inside
from lit_t6.training.runs import runs_of, saved_checkpoints
from lit_t6.training.steps_left import limits_reached


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
    last, _ = newest_whole(of_run(folder, saved_checkpoints(folder, config)))
    if last is None:
        return said
    trainer = config["trainer"]
    reached = limits_reached(read_inside(last), trainer["max_steps"], trainer["max_epochs"])
    more = " ".join(f"--trainer.{name} {2 * at}" for name, at in reached.items())  # as an example
    said += f" To go on with it instead, add --ckpt_path {last} {more or 'and a higher limit'}."
    if more and config["model"]["optimizer"]["decay_steps"] is None:
        said += (
            " The learning rate then rises to the schedule of the longer run; --model.optimizer.decay_steps sets it."
        )
    return said
