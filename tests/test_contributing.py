"""The worked example of CONTRIBUTING.md is a mechanism like ours."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lit_t6.attention import mechanisms, solve_num_heads
from lit_t6.testing import CONTRACT


def example_code():
    (code,) = re.findall(r"```python\n(.*?)```", Path("CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    return code


@pytest.fixture(scope="module")
def example():
    names = {"__name__": "example"}
    exec(compile(example_code(), "CONTRIBUTING.md", "exec"), names)  # our own text
    return names["KeyIsValueConfig"]


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_the_example_keeps_the_contract(check, example):
    check(example(num_heads=3, head_dim=16), d_model=48)


def test_the_example_works_as_a_file_of_the_package(tmp_path):
    """Exported where import sorting puts it: before the modules whose names it takes."""
    shutil.copytree("lit_t6", tmp_path / "lit_t6")
    attention = tmp_path / "lit_t6" / "attention"
    (attention / "key_is_value.py").write_text(example_code())
    exports = (attention / "__init__.py").read_text()
    line = "from lit_t6.attention.key_is_value import KeyIsValueAttention, KeyIsValueConfig\n"
    (attention / "__init__.py").write_text(
        exports.replace("from lit_t6.attention.latent", line + "from lit_t6.attention.latent")
    )
    code = "from lit_t6.attention import short_names; print('KV1' in short_names())"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"


def test_the_example_is_solved_for_the_budget_and_does_not_count_as_ours(example):
    assert solve_num_heads(example(), 768).num_heads == 16
    assert example not in mechanisms()
