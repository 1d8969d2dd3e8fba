"""Where Lightning's loops go on from a checkpoint, said in the one form that they take up without loss.

Lightning's counters differ with the hook that a checkpoint was written in, and some of the forms are taken up wrongly:
a validation is left out or labelled one step early, a batch of the next epoch is counted into the last. What the
counters mean, batches done and epochs done, gives the form that is always taken up rightly: at a boundary of steps,
with every counter of the batches the same.
"""

from typing import Any

import lightning as L

Counts = dict[str, Any]


def validation_follows(trainer: L.Trainer) -> bool:
    """Whether the batch at hand is done and will be followed by a validation; only Lightning's loop knows.

    Between the end of a batch and the validation that follows, a checkpoint is one of before it.

    Args:
        trainer: of the training.
    """
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    total = loop.batch_progress.state_dict()["total"]
    at_its_end = total["ready"] == total["processed"] != total["completed"]
    if not trainer.training or fetcher is None or not at_its_end:
        return False
    return loop._should_check_val_fx(fetcher) and not validates_nothing(trainer)


def validates_nothing(trainer: L.Trainer) -> bool:
    """Whether validations are known to have no batch: Lightning then passes over them without calling anybody.

    Args:
        trainer: of the training.
    """
    val_loop = trainer.fit_loop.epoch_loop.val_loop
    return trainer.limit_val_batches == 0 or (bool(val_loop.max_batches) and val_loop.skip)


def unfinished_batches(batch_progress: Counts, accumulate: int) -> int:
    """Batches at the end that do not make up a whole optimizer step: their gradients are in no checkpoint.

    Args:
        batch_progress: the state of the training's batch counters.
        accumulate: batches that make up a step.
    """
    return 0 if _ends_epoch(batch_progress) else int(batch_progress["current"]["processed"]) % accumulate


def is_mid_step(batch_progress: Counts, accumulate: int) -> bool:
    """Whether an optimizer step has begun and is not done: in a batch, or between those that make it up.

    Args:
        batch_progress: the state of the training's batch counters.
        accumulate: batches that make up a step.
    """
    current = batch_progress["current"]
    return current["ready"] != current["processed"] or unfinished_batches(batch_progress, accumulate) > 0


def go_on_after_last_step(
    loops: dict[str, Any], accumulate: int, samples: int, new_accumulate: int, new_samples: int, validation_due: bool
) -> None:
    """Rewrite the state of the fit loop so that it goes on with the batch after the last whole step.

    Args:
        loops: state of the fit loop in a checkpoint, changed in place.
        accumulate: batches that made up an optimizer step.
        samples: that all ranks together took in a batch.
        new_accumulate: batches that make up a step from here on.
        new_samples: that all ranks together take in a batch from here on.
        validation_due: the checkpoint is of the moment before a validation, which is then to be done first.
    """
    batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
    ended, left_out = _ends_epoch(batches), unfinished_batches(batches, accumulate)
    epoch = max(0, epochs["current"]["ready"] - 1)

    def translate(done: int) -> int:
        if (accumulate, samples) == (new_accumulate, new_samples):
            return done
        return done * samples // (new_samples * new_accumulate) * new_accumulate

    current, total = (translate(batches[name]["processed"] - left_out) for name in ("current", "total"))
    within = current > 0 and not (ended and not validation_due)  # an epoch, rather than between two
    _set(batches["current"], current if within else 0)
    _set(batches["total"], total)
    batches["is_last_batch"] = within and ended
    finished = epoch if within or not ended else epoch + 1
    for counts in (epochs["current"], epochs["total"]):
        _set(counts, finished)
        if within:
            counts["ready"] = counts["started"] = finished + 1
    validated = loops["epoch_loop.val_loop.batch_progress"]
    _set(validated["current"], 0)
    _set(validated["total"], 0)
    validated["is_last_batch"] = False
    if validation_due:  # a validation that has begun and done nothing is begun again
        validated["total"]["ready"] = validated["total"]["started"] = 1


def _ends_epoch(batch_progress: Counts) -> bool:
    current = batch_progress["current"]
    return bool(batch_progress["is_last_batch"] and current["processed"] == current["ready"])


def _set(counts: Counts, value: int) -> None:
    counts.update(dict.fromkeys(counts, value))
