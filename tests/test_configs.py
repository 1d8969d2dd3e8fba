from pathlib import Path

import pytest
import torch
import yaml

from lit_t6.attention import LatentConfig, MultiHeadConfig, TPAConfig
from lit_t6.model import T6Config
from lit_t6.training.cli import T6CLI

FILES = sorted(str(path) for path in Path("configs").rglob("*.yaml") if path.parent.name != "sweep")
PAPER = [path for path in FILES if path.startswith("configs/paper/")]
SIZES = {"small": 124e6, "medium": 353e6, "large": 772e6, "xl": 1.55e9}
ROUNDING = {"small": 0.5e6, "medium": 0.5e6, "large": 0.5e6, "xl": 5e6}  # half a unit of the last printed digit
HEADS = {  # paper Table 10
    "mha": (12, 16, 20, 25),
    "mqa": (23, 31, 39, 49),
    "gqa": (22, 30, 38, 48),
    "tpa": (34, 47, 61, 78),
    "mla": (13, 23, 34, 49),  # at latents of 256 and 512; the table's larger ones would exceed the parameters
    "tpa-kvonly": (22, 29, 37, 47),
}
CLASSES = {"tpa": TPAConfig, "tpa-kvonly": TPAConfig, "mla": LatentConfig}
SOLVED_OVER_MEDIUM = {"tpa": 47, "mha": 16, "mqa": 31, "gqa": 30, "mla": 23, "mfa": 57}  # heads of size 64


def build(path):
    """Parse and build as `cli.py fit` does, without memory for the weights."""
    with torch.device("meta"):
        words = ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.max_epochs=1"]
        return T6CLI.build(["--config", path, *words])


@pytest.mark.parametrize("path", FILES)
def test_every_file_is_parsed_and_built(path, tmp_path):
    built = build(path)
    plain = yaml.safe_load(Path(path).read_text())
    assert Path(path).read_text().startswith("# "), "say what it is for"
    counted = sum(parameter.numel() for parameter in built.model.parameters())
    assert counted == built.model.config.num_parameters()
    for key, value in plain.get("model", {}).items():
        if key not in ("attention", "optimizer", "compile"):
            assert getattr(built.model.config, key) == value
    for key, value in plain.get("data", {}).items():
        assert built.datamodule.hparams[key] == value
    for key, value in plain.get("model", {}).get("optimizer", {}).items():
        assert list(getattr(built.model.optimizer_config, key)) == value if key == "betas" else True
        assert key == "betas" or getattr(built.model.optimizer_config, key) == value
    assert built.trainer.max_steps == plain.get("trainer", {}).get("max_steps", -1)


def test_the_paper_is_complete():
    assert sorted(f"configs/paper/{size}-{mechanism}.yaml" for size in SIZES for mechanism in HEADS) == PAPER


@pytest.mark.parametrize("path", PAPER)
def test_sizes_and_head_counts_of_the_paper(path):
    size, mechanism = Path(path).stem.split("-", 1)
    config = build(path).model.config
    assert config.num_parameters() == pytest.approx(SIZES[size], abs=0.005 * SIZES[size] + ROUNDING[size])
    if mechanism in ("mha", "mqa", "gqa", "tpa"):
        assert config.num_parameters() == pytest.approx(SIZES[size], rel=0.005)
    data = build(path).datamodule
    for devices in (1, 2, 4, 8):
        assert data.global_batch_size % (data.batch_size * devices) == 0
    assert config.attention.num_heads == HEADS[mechanism][list(SIZES).index(size)]
    assert config.ffn_width == 8 * config.d_model // 3
    assert type(config.attention) is CLASSES.get(mechanism, MultiHeadConfig)


@pytest.mark.parametrize("path", PAPER)
def test_a_paper_file_is_its_model_file_but_for_mechanism_and_width(path):
    ours = yaml.safe_load(Path(path).read_text())
    base = yaml.safe_load(Path(f"configs/model/{Path(path).stem.split('-')[0]}.yaml").read_text())
    ours["model"].pop("attention")
    assert ours["model"].pop("multiple_of") == 1
    assert base["model"].pop("multiple_of") == T6Config().multiple_of
    for plain in (ours, base):
        plain["trainer"]["logger"]["init_args"].pop("name")
    assert ours == base


@pytest.mark.parametrize("mechanism", SOLVED_OVER_MEDIUM)
def test_attention_files_solve_for_the_budget_over_any_other(mechanism):
    with torch.device("meta"):
        words = ["--config=configs/paper/medium-tpa.yaml", f"--config=configs/attention/{mechanism}.yaml"]
        config = T6CLI.build([*words, "--trainer.accelerator=cpu", "--trainer.logger=false"]).model.config
    assert config.attention.num_heads == SOLVED_OVER_MEDIUM[mechanism]
