import os
import subprocess
import sys

import pytest
from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

from lit_t6.cli import run
from lit_t6.training.compile_cache import keep_compiled_code


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())  # as PyTorch sets it
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    return tmp_path / "home"


def test_code_is_kept_among_the_users_caches(home):
    keep_compiled_code()
    assert cache_dir() == str(home / ".cache" / "lit_t6" / "inductor")
    assert (home / ".cache" / "lit_t6" / "inductor").stat().st_mode & 0o777 == 0o700
    assert "TRITON_CACHE_DIR" not in os.environ


def test_what_the_user_set_holds(monkeypatch, tmp_path, home):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    keep_compiled_code()
    assert cache_dir() == str(tmp_path / "caches" / "lit_t6" / "inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "own"))
    keep_compiled_code()
    assert cache_dir() == str(tmp_path / "own")
    assert not home.exists()


def test_a_folder_that_cannot_be_made_changes_nothing(home):
    home.write_text("a file")
    keep_compiled_code()
    assert cache_dir() == default_cache_dir()


def test_nothing_is_made_where_nothing_is_compiled(options, home):
    run(["fit", *options, "--trainer.max_steps=1"])
    assert not (home / ".cache" / "lit_t6").exists()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == default_cache_dir()


@pytest.mark.slow
def test_the_next_run_compiles_nothing(options, home):
    """Two processes; needs a C++ compiler."""
    program = """
import sys
from torch._dynamo.utils import counters
from lit_t6.cli import run
run(sys.argv[1:])
print("found", counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"])
print("made", counters["inductor"]["fxgraph_cache_miss"])
"""
    words = [*options, "--model.compile=true", "--auto_resume=false"]
    found = []
    for _ in range(2):
        command = [sys.executable, "-W", "ignore", "-c", program, "fit", *words]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = dict(line.split() for line in result.stdout.splitlines() if line.startswith(("found ", "made ")))
        found.append((int(lines["found"]), int(lines["made"])))
    (_, made), (hits, made_again) = found
    assert made > 0
    assert hits > 0
    assert made_again == 0
    assert list((home / ".cache" / "lit_t6" / "inductor").iterdir())
