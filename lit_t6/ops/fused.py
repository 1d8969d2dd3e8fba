"""Fused causal attention, PyTorch's and ours, both ways apart, for operators with a backward of their own.

Letters: B batch, T positions, H heads, D head size.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from lit_t6.ops.dense import hopper

aten = torch.ops.aten
Backend = Literal["cudnn", "hopper", "flash", "efficient", "cpu"]
"""Whose kernels: cuDNN's; ours for Hopper GPUs; FlashAttention 2; PyTorch's memory-efficient ones, which take float32;
those for a CPU."""

_LSE_MULTIPLE = 32
_WAIT = 8_000_000
"""Cycles of the GPU's clock, about five milliseconds."""
_log = logging.getLogger(__name__)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, backend: Backend) -> tuple[Tensor, Tensor]:
    """Causal attention and what its way back needs.

    Args:
        q: (B, T, H, D).
        k: likewise.
        v: likewise.
        scale: of the logits.
        backend: one that is `usable`.

    Returns:
        The result (B, T, H, D), and the logarithms of the sums of exponentials (B, H, T), both contiguous.
    """
    if backend == "hopper":
        return hopper.attention(q, k, v, scale)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if backend == "cudnn":
        out, lse, *_ = aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, True, scale=scale)
    elif backend == "flash":
        out, lse, *_ = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True, scale=scale)
    elif backend == "efficient":
        out, lse, *_ = aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, True, scale=scale)
    else:
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True, scale=scale)
    batch, heads, length = q.shape[:3]
    lse = lse.reshape(batch, heads, lse.shape[2])[..., :length]
    return out.transpose(1, 2).contiguous(), lse.contiguous()


def attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float, backend: Backend
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, (B, T, H, D) each.

    Args:
        grad: of the result, (B, T, H, D).
        q: as `attend` took it, and the next four alike.
        k: likewise.
        v: likewise.
        out: what it gave.
        lse: likewise.
        scale: likewise.
        backend: likewise.
    """
    if backend == "hopper":
        of_q, of_k, of_v = hopper.attention_backward(grad, q, k, v, out, lse, scale)
        return of_q.rows(q.dtype), of_k, of_v
    grad, q, k, v, out = (x.transpose(1, 2) for x in (grad.contiguous(), q, k, v, out))
    length = q.shape[2]
    # Random states are of dropout, of which there is none.
    random = torch.zeros((), dtype=torch.int64, device=q.device)
    if backend == "cudnn":
        grads = aten._scaled_dot_product_cudnn_attention_backward(
            *(grad, q, k, v, out, lse.unsqueeze(-1), random, random),
            *(None, None, None, length, length, 0.0, True),
            scale=scale,
        )
    elif backend == "flash":
        grads = aten._scaled_dot_product_flash_attention_backward(
            *(grad, q, k, v, out, lse, None, None, length, length, 0.0, True, random, random), scale=scale
        )
    elif backend == "efficient":
        padding = -length % _LSE_MULTIPLE
        lse = torch.nn.functional.pad(lse, (0, padding), value=float("inf"))
        grads = aten._scaled_dot_product_efficient_attention_backward(
            *(grad, q, k, v, None, out, lse, random, random, 0.0, [True, True, True, False], True), scale=scale
        )
    else:
        grads = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, lse, 0.0, True, scale=scale
        )
    return grads[0].transpose(1, 2), grads[1].transpose(1, 2), grads[2].transpose(1, 2)


def attend_backward_in_tiles(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float, backend: Backend
) -> tuple[Tensor | hopper.QueryGradient, Tensor, Tensor]:
    """As `attend_backward`, but the gradient of queries as "hopper" leaves it, for who reads its tiles."""
    if backend == "hopper":
        return hopper.attention_backward(grad, q, k, v, out, lse, scale)
    return attend_backward(grad, q, k, v, out, lse, scale, backend)


def usable(dtype: torch.dtype, device: torch.device) -> list[Backend]:
    """Backends that may take such tensors, the likely fastest first; heads of some sizes they refuse all the same."""
    if device.type == "cpu":
        return ["cpu"]
    if device.type != "cuda":
        return []
    half = dtype in (torch.float16, torch.bfloat16)
    generation = torch.cuda.get_device_capability(device)
    if torch.version.hip is not None or generation < (8, 0) or not (half or dtype == torch.float32):
        return []
    cudnn, flash, efficient = _switched_on()
    allowed: dict[Backend, bool] = {
        "cudnn": half and generation >= (9, 0) and cudnn,
        "hopper": cudnn and hopper.why_not(dtype, device) is None,  # one switch for both
        "flash": half and flash,
        "efficient": efficient,
    }
    return [backend for backend, may in allowed.items() if may]


@torch.compiler.assume_constant_result
def _switched_on() -> tuple[bool, bool, bool]:
    """PyTorch's switches of cuDNN, flash and memory-efficient attention; what is compiled keeps what it found."""
    switches = torch.backends.cuda
    return switches.cudnn_sdp_enabled(), switches.flash_sdp_enabled(), switches.mem_efficient_sdp_enabled()


@dataclass(frozen=True)
class Choice:
    """A backend that was measured to be the fastest.

    Args:
        shape: of queries, keys and values, (B, T, H, D).
        dtype: of theirs.
        backend: that is taken.
        times: milliseconds forward and back of each that takes them; of several ranks, the mean.
    """

    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    backend: Backend
    times: dict[Backend, float]

    def __str__(self) -> str:
        spelled = ", ".join(f"{backend} {ms:.3f} ms" for backend, ms in self.times.items())
        sizes = " × ".join(map(str, self.shape))
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{sizes} (B, T, H, D) of {dtype}, forward and back: {spelled}; taken: {self.backend}"


_measured: dict[tuple[tuple[int, ...], torch.dtype, torch.device, tuple[Backend, ...]], Choice] = {}
_agreed: dict[tuple[tuple[int, ...], torch.dtype], Choice] = {}
_asked_for: set[tuple[tuple[int, ...], torch.dtype]] = set()
"""Of what ranks agreed on: what attention took."""


def choices() -> list[Choice]:
    """What was measured and is taken in this process so far."""
    own = [choice for choice in _measured.values() if (choice.shape[2:], choice.dtype) not in _agreed]
    return [*(choice for key, choice in _agreed.items() if key in _asked_for), *own]


def fastest(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Backend:
    """The backend that takes the least time forward and back, measured once for a shape, and logged.

    Args:
        shape: of queries, keys and values, (B, T, H, D).
        dtype: of theirs.
        device: of theirs.

    Raises:
        RuntimeError: none takes them; with the reason of each.
    """
    candidates = usable(dtype, device)
    if len(candidates) == 1:
        return candidates[0]
    agreed = _agreed.get((shape[2:], dtype))
    if agreed and agreed.backend in candidates:
        _asked_for.add((shape[2:], dtype))
        return agreed.backend
    key = (shape, dtype, device, tuple(candidates))
    if key not in _measured:
        times, refused = _measure(shape, dtype, device, candidates)
        if not times:
            reasons = "; ".join(refused) or "none known"
            raise RuntimeError(f"no fused attention for {dtype} {shape} on {device}: {reasons}")
        _measured[key] = _choose(shape, dtype, times)
    return _measured[key].backend


def backend_for(q: Tensor) -> Backend:
    """The `fastest` one for queries (B, T, H, D), T up to the next power of two: few lengths are worth measuring."""
    if q.is_cuda and torch.cuda.is_current_stream_capturing():  # nothing can be waited for, nor copied
        return next(backend for backend in usable(q.dtype, q.device) if backend != "hopper")  # beside which is cuDNN
    batch, length, heads, size = q.shape
    return fastest((batch, _measured_length(length), heads, size), q.dtype, q.device)


def _measured_length(length: int) -> int:
    return 1 << (length - 1).bit_length()


def agree(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> None:
    """Have all ranks take the same backend for heads of this number and size, in batches of any size.

    It is the one of the least time over all of them. Every rank of the default process group has to call this.

    Args:
        shape: to measure, (B, T, H, D), T as `backend_for` takes it.
        dtype: of queries, keys and values.
        device: of this rank.
    """
    shape = (shape[0], _measured_length(shape[1]), *shape[2:])
    try:
        own, _ = _measure(shape, dtype, device, usable(dtype, device))
    except torch.OutOfMemoryError:  # the others wait for this rank; training will say it
        own = {}
    every = get_args(Backend)
    times = torch.tensor([own.get(backend, math.inf) for backend in every], device=device)
    dist.all_reduce(times)
    means = dict(zip(every, (times / dist.get_world_size()).tolist(), strict=True))
    taken = {backend: ms for backend, ms in means.items() if ms < math.inf}  # by every rank
    if taken:
        _agreed[shape[2:], dtype] = _choose(shape, dtype, taken)


def _choose(shape: tuple[int, int, int, int], dtype: torch.dtype, times: dict[Backend, float]) -> Choice:
    choice = Choice(shape, dtype, min(times, key=lambda backend: times[backend]), times)
    _log.info("attention, %s", choice)
    return choice


def _measure(
    shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device, candidates: list[Backend]
) -> tuple[dict[Backend, float], list[str]]:
    """Milliseconds of each backend that takes such tensors, and why the others do not."""
    times: dict[Backend, float] = {}
    refused = []
    for backend in candidates:
        try:
            times[backend] = _time(shape, dtype, device, backend)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # by its words only can one tell, and another may take them
            refused.append(f"{backend}: {str(error).splitlines()[0]}")
    return times, refused


def _time(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device, backend: Backend) -> float:
    """Milliseconds; the least of a few."""
    generator = torch.Generator(device).manual_seed(0)  # the random state of a training is not to move
    q, k, v, grad = torch.randn(4, *shape, dtype=dtype, device=device, generator=generator)
    scale = shape[-1] ** -0.5

    def once() -> None:
        out, lse = attend(q, k, v, scale, backend)
        attend_backward(grad, q, k, v, out, lse, scale, backend)

    return min(_clocked(once, device) for _ in range(4))


def _clocked(run: Callable[[], None], device: torch.device) -> float:
    """Milliseconds of the GPU, which is kept waiting until all is launched: a training step launches ahead as well."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        torch.cuda._sleep(_WAIT)
        begin.record()
        run()
        end.record()
        end.synchronize()
    return begin.elapsed_time(end)
