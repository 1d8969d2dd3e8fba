"""What several processes wish, known to all of them at the same step."""

import torch
import torch.distributed as dist


class Agreement:
    """Every process states a wish at every step; a step later each knows the greatest, and all know the same.

    The numbers travel over a process group of their own, on CPUs and while the step computes: no GPU is waited for, and
    the collectives of training are not disturbed. A process that died lets the others' call raise.

    Args:
        world_size: number of processes; all of them must build it, and call it, in the same order.
    """

    def __init__(self, world_size: int) -> None:
        self._group = dist.new_group(backend="gloo") if world_size > 1 else None
        self._sent: tuple[dist.Work, torch.Tensor] | None = None

    def ask(self, wish: int) -> int:
        """State a wish, 0 for none.

        Args:
            wish: of this process.

        Returns:
            The greatest wish of all processes at the last call, 0 at the first; of a single process, its own now.
        """
        if self._group is None:
            return wish
        earlier, wishes = self._received(), torch.tensor([wish])
        work = dist.all_reduce(wishes, dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._sent = work, wishes
        return earlier

    def settle(self, wish: int) -> int:
        """State a wish and wait for those of all others now, where processes wait for each other in any case."""
        return max(self.ask(wish), self._received())

    def close(self) -> None:
        """Leave nothing under way."""
        self._received()

    def _received(self) -> int:
        if self._sent is None:
            return 0
        (work, wishes), self._sent = self._sent, None
        work.wait()
        return int(wishes)
