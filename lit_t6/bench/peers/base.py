"""What a peer is: one way to compute a decode step of one mechanism."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from lit_t6.bench.grid import Point
from lit_t6.bench.mechanisms import Inputs, Mechanism
from lit_t6.bench.timing import Call


class Peer(ABC):
    """One way to compute a decode step.

    Args:
        library: whose it is, such as "torch".
        variant: which of its ways.
        mechanism: the attention that it computes.
    """

    strict = False
    """Whether its output must be as exact as the reference: what is ours. Others may have a stated error."""
    copies = False
    """Whether it keeps a copy of the cache, in a layout of its own."""
    preparing_seconds: float | None = None
    """How long it may prepare in a run, all points together: where each shape is compiled anew; None for any time."""

    def __init__(self, library: str, variant: str, mechanism: Mechanism) -> None:
        self.library, self.variant, self.mechanism = library, variant, mechanism

    @property
    def name(self) -> str:
        """Library and variant."""
        return f"{self.library} {self.variant}".strip()

    @abstractmethod
    def why_not(self, point: Point) -> str | None:
        """Why it cannot compute a point; None if it may."""

    @abstractmethod
    def prepare(self, point: Point, sets: Sequence[Inputs]) -> list[Call]:
        """A call for each set of inputs. What is done here is not timed: layouts, plans.

        Args:
            point: the shape.
            sets: inputs.

        Returns:
            Calls that give (B, …, E), the axes between those of the heads in their order. `result` makes one axis of
            them: that may take a kernel, which is not the peer's and is not timed.
        """

    def result(self, output: Tensor, point: Point) -> Tensor:
        """(B, H, E) of what a call gave.

        Args:
            output: of a call.
            point: the shape.
        """
        return output.reshape(point.batch, point.num_heads, -1)


def not_on_gpu(point: Point) -> str | None:
    """The reason of whatever needs a GPU."""
    return None if point.on_gpu else "needs a CUDA GPU"
