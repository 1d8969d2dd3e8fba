"""One step of decoding: from the newest token of each row to the logits of the next.

Letters: B batch, C model width, V vocabulary.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from lit_t6.model.cache import ModelCache
from lit_t6.model.config import T6Config

StepMode = Literal["auto", "eager", "graph", "compile"]
"""How a step runs: kernel by kernel; as one CUDA graph; or as a graph of compiled blocks. auto: a graph on a GPU."""

_WARM_UPS = 2
"""Steps before a graph is recorded: kernels are compiled and libraries choose in them."""


class DecodingModel(Protocol):
    """What decoding asks of a model; `T6Model` has it."""

    config: T6Config

    @property
    def head(self) -> Callable[[Tensor], Tensor]:
        """Logits (B, V) of hidden states (B, C)."""

    def new_cache(self, batch_size: int, capacity: int | None = None) -> ModelCache:
        """An empty cache."""

    def hidden_states(self, tokens: Tensor, *, cache: ModelCache | None = None, compiled: bool = False) -> Tensor:
        """Inputs of the head (B, T, C), the tokens (B, T) being added to the cache."""


class DecodeStep:
    """Logits of each row's next token; callable with the newest tokens, as often as the cache has room.

    A graph launches all kernels of a step at once: a small model takes a few microseconds to compute a layer, and
    would otherwise wait for Python. It is recorded once and serves all lengths of the cache.

    Args:
        model: what computes, in the mode that it is in; its weights must stay where they are.
        cache: of the model, holding at least one token a row when the step is called.
        mode: how a step runs.

    Raises:
        ValueError: an unknown mode, or a graph without a GPU.
    """

    def __init__(self, model: DecodingModel, cache: ModelCache, mode: StepMode = "auto") -> None:
        on_gpu = cache.device.type == "cuda"
        if mode not in get_args(StepMode):
            raise ValueError(f"step={mode!r} is none of {', '.join(get_args(StepMode))}.")
        if mode == "graph" and not on_gpu:
            raise ValueError(f"step=graph: the model is on {cache.device}, expected a GPU; use auto, eager or compile.")
        self.mode: StepMode = ("graph" if on_gpu else "eager") if mode == "auto" else mode
        self._model, self._cache = model, cache
        self._records = on_gpu and self.mode != "eager"
        self._warm_ups_left = _WARM_UPS
        self._graph: torch.cuda.CUDAGraph | None = None
        self._tokens = self._logits = torch.empty(0)

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor:
        """Add the newest tokens, (B,), to the cache; logits (B, V), which the next call may overwrite.

        Raises:
            ValueError: the cache is full.
        """
        if self.mode == "eager":
            return self._compute(tokens)
        self._cache.check(len(self._cache.layers), len(tokens), 1)
        with self._cache.fixed_shapes(1):
            if not self._records or self._warm_ups_left:
                self._warm_ups_left -= 1
                return self._compute(tokens)
            if self._graph is None:
                self._record(tokens)
            assert self._graph is not None
            self._tokens.copy_(tokens)
            self._graph.replay()
            return self._logits

    def _compute(self, tokens: Tensor) -> Tensor:
        compiled = self.mode == "compile"
        return self._model.head(self._model.hidden_states(tokens[:, None], cache=self._cache, compiled=compiled)[:, 0])

    def _record(self, tokens: Tensor) -> None:
        """Nothing is computed here: what the kernels will do is written down."""
        with torch.inference_mode(False):  # what is made in inference mode could not be written outside of it
            self._tokens = tokens.clone()
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(tokens.device)
        stream.wait_stream(torch.cuda.current_stream(tokens.device))
        # Autocast's own copies of weights would go when its context ends.
        autocast: AbstractContextManager[Any] = nullcontext()
        if torch.is_autocast_enabled("cuda"):
            autocast = torch.autocast("cuda", torch.get_autocast_dtype("cuda"), cache_enabled=False)
        with torch.cuda.stream(stream), autocast:
            # Other threads, a data loader's or a process group's, may use the GPU meanwhile.
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._logits = self._compute(self._tokens)
            finally:
                graph.capture_end()
        torch.cuda.current_stream(tokens.device).wait_stream(stream)
        self._graph = graph
