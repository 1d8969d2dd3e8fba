"""Where a training stands in the data: a count of samples, taken back to whole optimizer steps when it is saved."""

from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader


class Position:
    """Samples used so far, over all ranks, and where those of the optimizer step at hand began."""

    def __init__(self) -> None:
        self.samples_seen = 0
        self._step, self._step_began_at = -1, 0

    def start(self, *, afresh: bool) -> None:
        """A training begins: with the first sample, or where a checkpoint has said that it stands."""
        self._step = -1
        if afresh:
            self.samples_seen = 0

    def use(self, samples: int, step: int) -> None:
        """Count a batch.

        Args:
            samples: that all ranks together take in it.
            step: optimizer steps that are done.
        """
        if step != self._step:
            self._step, self._step_began_at = step, self.samples_seen
        self.samples_seen += samples

    def after_whole_steps(self, step: int | None) -> int:
        """Samples of the steps that are done: gradients of the one at hand are in no checkpoint.

        Args:
            step: optimizer steps that are done; None where nobody trains.
        """
        return self._step_began_at if step == self._step else self.samples_seen

    def samples_of_step(self, batch_size: int, world_size: int) -> list[list[list[int]]]:
        """The samples of the step at hand: of each rank, of each batch, its first and last global index."""
        batches = range(self._step_began_at, self.samples_seen, batch_size * world_size)
        ranks = range(world_size)
        return [[[at + r * batch_size, at + (r + 1) * batch_size - 1] for at in batches] for r in ranks]


class ResumableLoader(DataLoader[dict[str, Tensor]]):
    """A loader that needs no state: its sampler asks the data module where the run stands.

    The two methods say to Lightning that it can be resumed.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing: see `TokenDataModule.state_dict`."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore."""
