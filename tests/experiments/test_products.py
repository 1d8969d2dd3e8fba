import json
from collections import Counter

import pytest
import torch

from experiments.train_speed import products
from experiments.train_speed.products import Product
from lit_t6.attention import MultiHeadConfig
from lit_t6.model import T6Config

ATTENTION = MultiHeadConfig(num_heads=2, num_kv_heads=2, head_dim=16)
CONFIG = T6Config(vocab_size=64, max_seq_len=8, d_model=16, num_layers=3, attention=ATTENTION)


def test_the_products_of_a_layer_are_those_of_its_projections_forward_and_back():
    seen = products.products_of(CONFIG.to_dict(), batch=2, seq_len=8, precision="32-true", device="cpu")
    sizes = sorted(sorted((product.m, product.k, product.n)) for product in Counter(seen).elements())
    # 16 tokens; queries, keys and values at once, output, gate and up at once, down: each forward and twice back
    weights = [(16, 96), (16, 32), (16, 2 * CONFIG.ffn_width), (16, CONFIG.ffn_width)]
    assert sizes == sorted(sorted((16, *weight)) for weight in weights for _ in range(3))


def test_products_inside_of_operators_are_seen():
    @torch.library.custom_op("lit_t6_test::doubled_product", mutates_args=())
    def doubled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 2 * (x @ y)

    x, y = torch.ones(2, 3), torch.ones(3, 4)
    with products._Seen() as within, torch.profiler.record_function("an operator without tensors"):
        found = doubled(x, y) @ y.T
    torch.testing.assert_close(found, 2 * x @ y @ y.T)
    assert within.products == {
        Product(2, 3, 4, True, True, "float32"): 1,
        Product(2, 4, 3, True, False, "float32"): 1,
    }


@pytest.mark.parametrize("rows", [(True, True), (True, False), (False, True), (False, False)])
def test_factors_lie_as_those_that_were_seen(rows):
    left, right = Product(3, 4, 5, *rows, "float32").draw("cpu")
    assert (left.shape, right.shape) == ((3, 4), (4, 5))
    assert (left.stride(1) == 1, right.stride(1) == 1) == rows


def test_a_way_that_gives_another_product_is_refused(monkeypatch):
    monkeypatch.setattr(products, "ways", lambda *_: {"wrong": lambda left, right: left @ right + 9})
    with pytest.raises(ValueError, match="wrong: gives another product"):
        products.measure(Product(3, 4, 5, True, True, "float32"), "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["its transpose", "4 parts of the sum"])
def test_all_ways_give_the_product(way):
    product = Product(64, 8192, 96, False, True, "bfloat16")
    left, right = product.draw("cuda")
    found = products.ways(product, "cuda")[way](left, right)
    torch.testing.assert_close(found.double(), left.double() @ right.double(), rtol=2**-7, atol=2**-7 * 90)


def test_a_table_is_written(tmp_path, capsys):
    words = [f"--output={tmp_path}", "--config=configs/quickstart.yaml", "--batch=1", "--seq_len=16", "--device=cpu"]
    before = torch.get_float32_matmul_precision()
    assert products.main([*words, "--precision=32-true"]) == 0
    torch.set_float32_matmul_precision(before)
    assert "TFLOP/s; each in its fastest way" in capsys.readouterr().out
    found = json.loads((tmp_path / "products.json").read_text())["products"]
    assert {each["dtype"] for each in found} == {"float32"}
    assert (tmp_path / "products.md").read_text().count("\n| ") == 1 + len(found)
