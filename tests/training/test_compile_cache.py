import os
import subprocess
import sys

import pytest
from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

from lit_t6.cli import run
from lit_t6.training.compile_cache import keep_compiled_code
from tests.training.disks import files_no_longer_than, fill, small_disk


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


def test_a_place_without_space_changes_nothing(home):
    with files_no_longer_than(1 << 19):
        keep_compiled_code()
    assert cache_dir() == default_cache_dir()
    assert not list((home / ".cache" / "lit_t6" / "inductor").iterdir())
    keep_compiled_code()
    assert cache_dir() == str(home / ".cache" / "lit_t6" / "inductor")


def test_a_full_disk_changes_nothing(monkeypatch, tmp_path):
    with small_disk(tmp_path / "small", "1m") as disk:
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
        (disk / "lit_t6" / "inductor").mkdir(parents=True)
        fill(disk)
        keep_compiled_code()
        assert cache_dir() == default_cache_dir()


@pytest.mark.parametrize("name", ["lit_t6", "lit_t6/inductor"])
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_may_write_to_changes_nothing(home, name, mode):
    keep_compiled_code()
    assert (home / ".cache" / "lit_t6").stat().st_mode & 0o777 == 0o700
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = default_cache_dir()
    (home / ".cache" / name).chmod(mode)
    keep_compiled_code()
    assert cache_dir() == default_cache_dir()


def test_a_folder_of_another_user_changes_nothing(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
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
