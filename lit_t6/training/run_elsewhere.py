"""A run that was stopped on other devices: it is not gone on with unasked, but named."""

from typing import Any

from lit_t6.training.checkpoint_choice import newest_whole, of_run
from lit_t6.training.run_lock import is_held
from lit_t6.training.runs import comparable, config_of, runs_beside, saved_checkpoints

_OF_DEVICES = {"trainer": ("accelerator", "devices", "num_nodes", "strategy"), "data": ("batch_size", "num_workers")}
"""Settings that say where and how a run is trained, and not what."""


def describe_run_elsewhere(config: dict[str, Any]) -> str:
    """What to tell who begins a run whose like was stopped on other devices; empty if there is none.

    Args:
        config: all options of `fit`, in plain form. Where the logger's version is named, no new run begins beside it.
    """
    if (config["trainer"].get("logger") or {}).get("init_args", {}).get("version") is not None:
        return ""
    ours = comparable(config)
    for folder, _ in runs_beside(config, finished=False):
        theirs = comparable(config_of(folder) or {})
        if theirs == ours or _without_devices(theirs) != _without_devices(ours) or is_held(folder):
            continue
        path, _ = newest_whole(of_run(folder, saved_checkpoints(folder, config)))
        if path is None:
            continue
        changed = [
            f"{group}.{key} was {was}"
            for group, keys in _OF_DEVICES.items()
            for key in keys
            if (was := theirs[group].get(key)) != ours[group].get(key)
        ]
        return (
            f"{folder} is the same, not finished, where {', '.join(changed)}: --ckpt_path {path} goes on with it. This "
            f"is a new run."
        )
    return ""


def _without_devices(config: dict[str, Any]) -> dict[str, Any]:
    plain = dict(config)
    for group, keys in _OF_DEVICES.items():
        plain[group] = {key: value for key, value in (config.get(group) or {}).items() if key not in keys}
    return plain
