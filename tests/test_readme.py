"""Every command and every program of the README runs as it is printed, on a tiny text and with tiny settings."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .training.runs import fit

README = Path("README.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.splitlines()]
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.S)
TARGETS = set(re.findall(r"(?:`|^    )make ([a-z-]+)", README + Path("CONTRIBUTING.md").read_text(), re.M))
TINY = ["--model.d_model=64", "--model.num_layers=1", "--model.attention.head_dim=8", "--model.max_seq_len=32"]
TINY += ["--trainer.max_steps=3", "--trainer.limit_val_batches=2", "--model.compile=false", "--trainer.accelerator=cpu"]
TINY_SWEEP = ["--seeds=0", "--options.trainer.max_steps=3", "--options.data.eval_windows=8"]
TINY += ["--data.batch_size=2", "--data.global_batch_size=null", "--data.num_workers=0"]


def test_the_readme_shows_something():
    assert len(COMMANDS) >= 9
    assert all(command.startswith("python cli.py ") for command in COMMANDS)
    assert PROGRAMS
    assert {"demo", "test", "test-all", "tensorboard"} <= TARGETS


def test_make_targets_exist():
    makefile = Path("Makefile").read_text()
    for target in TARGETS:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_every_curve_of_a_training_is_named(tmp_path, prepared):
    fit(tmp_path, prepared)
    (row,) = re.findall(r"^\| Scalars \|.*", README, re.M)
    named = {*re.findall(r"`([^`]+)`", row), "train/loss_over_tokens", "val/loss_over_tokens"}
    curves = EventAccumulator(str(tmp_path / "run")).Reload().Tags()["scalars"]
    assert {tag for tag in curves if not tag.startswith("factors/")} <= named


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, texts, prepared, upstream_folder):
    """A folder that looks like the checkout, with a text and models of the user's and the demo's data."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("cli.py", "lit_t6", "configs"):
        (folder / name).symlink_to(Path(name).resolve())
    (folder / "my_texts").symlink_to(texts)
    (folder / "prompts.txt").write_text("It was\nA statement is\n")
    (folder / "T6-small").symlink_to(upstream_folder)
    (folder / "gpt2").mkdir()
    (folder / "gpt2" / "tokenizer.json").symlink_to(prepared / "tokenizer.json")
    (folder / "data").mkdir()
    (folder / "data" / "shakespeare").symlink_to(prepared)
    return folder


def tiny(words):
    """Options that make a command short."""
    return TINY if words[0] == "fit" else TINY_SWEEP if words[:2] == ["sweep", "run"] else []


def run(command, folder):
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=280)
    assert result.returncode == 0, f"{shlex.join(command)}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_commands_run_in_the_order_of_the_readme(workplace):
    for line in COMMANDS:
        words = [sys.executable, *shlex.split(line)[1:]]
        run(words + tiny(words[2:]), workplace)
    assert (workplace / "predictions.jsonl").exists()
    assert {path.name for path in (workplace / "logs").iterdir()} >= {"quickstart", "mha", "gqa", "small"}


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run(workplace, program):
    run([sys.executable, "-W", "ignore", "-c", program], workplace)
