"""Study files for tests."""

from pathlib import Path

from lit_t6.sweeps import Study, load_study

RANK, RANK_QUICK = Path("configs/sweep/rank.yaml"), Path("configs/sweep/rank-quick.yaml")
QUICKSTART = Path("configs/quickstart.yaml").resolve()
BASE = (
    f"configs: [{QUICKSTART}]\noptions: {{model.num_layers: 1, model.attention.head_dim: 16, trainer.max_steps: 8}}\n"
)
"""A small model that ends."""


def write(folder, text, name="study.yaml"):
    """A file, and its path."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def study(folder, text, overrides=None) -> Study:
    """A study on the quickstart, small."""
    return load_study([write(folder, BASE + text)], overrides)
