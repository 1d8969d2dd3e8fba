"""How near to the GPU's rate are the matrix products of a training step, and would another way to form them be faster?

python -m experiments.train_speed.products --output experiments/train_speed/results_products
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.options import add_device, make_folder, parser_for, positive, warn_of_cpu
from lit_t6.bench.facts import facts, write_json
from lit_t6.bench.timing import num_sets, time_calls
from lit_t6.bench.training.case import OURS, Case
from lit_t6.bench.training.steps import make_step
from lit_t6.model_reader import ModelReader

Way = Callable[[Tensor, Tensor], Tensor]
_SPLITS = (2, 3, 4, 5, 8)
_DEEP = 4096
"""Terms of a sum from which splitting it is tried."""


@dataclass(frozen=True)
class Product:
    """A matrix product, (M, K) by (K, N).

    Args:
        m: M.
        k: K.
        n: N.
        left_rows: whether rows of the left factor lie together in memory; else its columns do.
        right_rows: the same of the right one.
        dtype: such as "bfloat16".
    """

    m: int
    k: int
    n: int
    left_rows: bool
    right_rows: bool
    dtype: str

    def draw(self, device: str) -> tuple[Tensor, Tensor]:
        """Two factors, laid out as those that were seen."""
        dtype = getattr(torch, self.dtype)
        left = torch.randn((self.m, self.k) if self.left_rows else (self.k, self.m), device=device, dtype=dtype)
        right = torch.randn((self.k, self.n) if self.right_rows else (self.n, self.k), device=device, dtype=dtype)
        return left if self.left_rows else left.T, right if self.right_rows else right.T

    @property
    def flops(self) -> int:
        """A multiply-add is two."""
        return 2 * self.m * self.k * self.n


class _Seen(TorchDispatchMode):
    """Counts products of two matrices that are formed within it, also on ways back and inside of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        packet = func.overloadpacket
        if packet in (torch.ops.aten.mm, torch.ops.aten.addmm):
            left, right = [x for x in args if isinstance(x, Tensor)][-2:]
            (m, k), n = left.shape, right.shape[1]
            rows = left.stride(1) == 1, right.stride(1) == 1
            self.products[Product(m, k, n, *rows, str(left.dtype).removeprefix("torch."))] += 1
        # What other operators call is seen only if this mode is on, and they are not called through it.
        with self:
            if func.namespace != "aten":
                device = next((x.device.type for x in args if isinstance(x, Tensor)), None)
                if device is not None:
                    kernel = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, device.upper()))
                    return func.redispatch(kernel, *args, **(kwargs or {}))
            parts = func.decompose(*args, **(kwargs or {}))  # inside of operators, `x @ y` arrives whole
        return func(*args, **(kwargs or {})) if parts is NotImplemented else parts


def products_of(config: dict[str, Any], batch: int, seq_len: int, precision: Any, device: str) -> dict[Product, int]:
    """The products of one layer in a training step, how often each, as seen in steps of two layers and of one.

    Args:
        config: of the model, as of `T6Config.to_dict`.
        batch: sequences.
        seq_len: tokens of each.
        precision: as Lightning names it.
        device: to run them on.
    """
    seen = []
    for num_layers in (1, 2):
        shallow = {**config, "num_layers": num_layers}
        case = Case("", OURS, shallow, batch, seq_len, 1, 0, precision, compile=False, seed=0, device=device)
        step = make_step(case)
        tokens = torch.randint(config["vocab_size"], (batch, seq_len), device=device)
        with _Seen() as within:
            step.forward_backward(tokens, tokens)
        seen.append(within.products)
    return dict(seen[1] - seen[0])


def in_parts(parts: int) -> Way:
    """Forms a product as the sum of those of parts of K, each in float32.

    Args:
        parts: how many; a divisor of K.
    """

    def form(left: Tensor, right: Tensor) -> Tensor:
        lefts, rights = left.unflatten(1, (parts, -1)).transpose(0, 1), right.unflatten(0, (parts, -1))
        return torch.bmm(lefts, rights, out_dtype=torch.float32).sum(0).to(left.dtype)

    return form


def ways(product: Product, device: str) -> dict[str, Way]:
    """Ways to form a product, by what they do.

    Args:
        product: to form.
        device: where.
    """
    found: dict[str, Way] = {
        "as it is": lambda left, right: left @ right,
        "its transpose": lambda left, right: (right.T @ left.T).T,
    }
    if product.k >= _DEEP and product.dtype != "float32" and torch.device(device).type == "cuda":
        found |= {f"{parts} parts of the sum": in_parts(parts) for parts in _SPLITS if product.k % parts == 0}
    return found


def measure(product: Product, device: str) -> dict[str, float]:
    """Milliseconds of each way to form a product, each checked.

    Args:
        product: to form.
        device: where.

    Raises:
        ValueError: a way gives another product.
    """
    left, right = product.draw(device)
    factors = [(left, right)] + [product.draw(device) for _ in range(num_sets(left.nbytes + right.nbytes, device) - 1)]
    exact = left.double() @ right.double()
    found = {}
    for name, form in ways(product, device).items():
        if not torch.allclose(form(left, right).double(), exact, rtol=2**-6, atol=2**-6 * product.k**0.5):
            raise ValueError(f"{product}: {name}: gives another product.")
        found[name] = time_calls([partial(form, *each) for each in factors], device).ms
    return found


def table(found: Sequence[dict[str, Any]], device: str) -> str:
    """The results in Markdown, the products that take longest first.

    Args:
        found: of each product, as written to products.json.
        device: its name.
    """
    total = sum(each["count"] * each["ms"]["as it is"] for each in found)
    flops = sum(each["count"] * each["flops"] for each in found)
    best = sum(each["count"] * min(each["ms"].values()) for each in found)
    lines = [
        f"{device}: products of a layer, forward and back: {total:.3f} ms, {flops / total / 1e9:,.0f} TFLOP/s; each in "
        f"its fastest way {best:.3f} ms, {flops / best / 1e9:,.0f} TFLOP/s",
        "",
        "| M | K | N | times | ms | TFLOP/s | fastest way | ms | TFLOP/s |",
        "|---:|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    for each in sorted(found, key=lambda each: -each["count"] * each["ms"]["as it is"]):
        way = min(each["ms"], key=each["ms"].__getitem__)
        as_it_is, fastest = each["ms"]["as it is"], each["ms"][way]
        cells = [
            *(str(each[name]) for name in ("m", "k", "n", "count")),
            *(f"{as_it_is:.4f}", f"{each['flops'] / as_it_is / 1e9:,.0f}"),
            *(way, f"{fastest:.4f}", f"{each['flops'] / fastest / 1e9:,.0f}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write products.json and products.md.

    Args:
        arguments: of the command line; those of the process if not given.

    Returns:
        The exit status.
    """
    parser = parser_for("experiments.train_speed.products", __doc__)
    parser.add_argument("--output", required=True, type=Path, help="folder for products.json and products.md")
    parser.add_argument("--config", default="configs/paper/medium-tpa.yaml", help="file of a model")
    parser.add_argument("--batch", type=positive, default=20, help="sequences of a step")
    parser.add_argument("--seq_len", type=positive, default=1024, help="tokens of each")
    parser.add_argument(
        "--precision", choices=("bf16-mixed", "32-true"), default="bf16-mixed", help="as `fit` takes it"
    )
    add_device(parser)
    options = parser.parse_args(arguments)
    folder = make_folder(parser, options.output)
    warn_of_cpu(
        options.device, options.batch * options.seq_len, "--config configs/quickstart.yaml --batch 1 --seq_len 16"
    )
    torch.set_float32_matmul_precision("high")
    config = ModelReader().read([f"--config={options.config}"]).resolved().to_dict()
    counted = products_of(config, options.batch, options.seq_len, options.precision, options.device)
    found = []
    for product, count in counted.items():
        ms = measure(product, options.device)
        found.append({**vars(product), "flops": product.flops, "count": count, "ms": ms})
        print(f"{product.m} × {product.k} × {product.n}: {ms}", file=sys.stderr, flush=True)
    about = facts(options.device, program="-m experiments.train_speed.products")
    write_json(
        folder / "products.json",
        {"settings": {**vars(options), "output": str(options.output)}, "facts": about, "products": found},
    )
    (folder / "products.md").write_text(table(found, about["same"]["device"]))
    print(table(found, about["same"]["device"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
