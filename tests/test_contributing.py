"""The worked example of CONTRIBUTING.md is a mechanism like ours."""

import re
from pathlib import Path

import pytest

from lit_t6.attention import mechanisms, solve_num_heads
from lit_t6.testing import CONTRACT


@pytest.fixture(scope="module")
def example():
    (code,) = re.findall(r"```python\n(.*?)```", Path("CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    names = {"__name__": "example"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)  # our own text
    return names["KeyIsValueConfig"]


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_the_example_keeps_the_contract(check, example):
    check(example(num_heads=3, head_dim=16), d_model=48)


def test_the_example_is_solved_for_the_budget_and_does_not_count_as_ours(example):
    assert solve_num_heads(example(), 768).num_heads == 16
    assert example not in mechanisms()
