"""What a command need not load, it does not wait for."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        (["--help"], "torch"),
        (["fit", "--help"], "torch"),
        (["prepare", "--help"], "torch"),
        (["prepare", "TEXTS", "--output", "OUTPUT", "--vocab_size=300"], "torch"),
        (["budget", "--config=configs/quickstart.yaml", "--config=MHA"], "lightning"),
    ],
    ids=" ".join,
)
def test_light_commands_load_little(words, unneeded, texts, tmp_path):
    places = {"TEXTS": str(texts), "OUTPUT": str(tmp_path / "prepared")}
    program = f"""
import sys
from lit_t6.cli import main
try:
    status = main({[places.get(word, word) for word in words]})
except SystemExit as end:
    status = end.code
assert status == 0
assert {unneeded!r} not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
