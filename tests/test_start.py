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
        (["generate", "--help"], "torch"),
        (["convert", "--help"], "torch"),
        (["prepare", "TEXTS", "--output", "OUTPUT", "--vocab_size=300"], "torch"),
        (["budget", "--config=configs/quickstart.yaml", "--config=MHA"], "lightning"),
    ],
    ids=" ".join,
)
def test_light_commands_load_little(words, unneeded, texts, tmp_path):
    places = {"TEXTS": str(texts), "OUTPUT": str(tmp_path / "prepared")}
    check(words=[places.get(word, word) for word in words], status=0, unneeded=unneeded)


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        (["fit", "--config=none.yaml"], "torch"),
        (["fit", "--config=configs/quikstart.yaml"], "torch"),
        (["generate", "--ckpt_path=none.ckpt", "--max_new_tokens=0"], "torch"),
        (["convert", "none"], "torch"),
    ],
    ids=" ".join,
)
def test_errors_that_can_be_told_early_are(words, unneeded):
    check(words, 1, unneeded)


LAZY = {
    "training": ["callbacks", "module", "run_folder"],
    "interop": ["layout", "reading", "upstream"],
    "data": ["dataset", "module", "order"],
}


@pytest.mark.parametrize("room", LAZY)
def test_what_is_not_loaded_yet_can_be_seen_and_asked_for(room):
    program = f"""
import sys
import lit_t6.{room} as room
assert "torch" not in sys.modules
assert {{*room.__all__, *{LAZY[room]}}} <= {{*dir(room)}}
for name in ("no_such_name", "__wrapped__"):
    assert not hasattr(room, name)
assert "torch" not in sys.modules
for name in {LAZY[room]}:
    assert getattr(room, name).__name__ == "lit_t6.{room}." + name
for name in dir(room):
    getattr(room, name)
"""
    subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", program], check=True)


def check(words, status, unneeded):
    program = f"""
import sys
from lit_t6.cli import main
try:
    status = main({words})
except SystemExit as end:
    status = end.code
assert status == {status}
assert {unneeded!r} not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
