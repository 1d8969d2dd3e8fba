import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lit_t6.attention import LatentConfig, MFAConfig, MultiHeadConfig, TPAConfig
from lit_t6.bench.training.upstream import counterpart, fill_rotary_tables, find_models, load
from lit_t6.model import T6Config
from lit_t6.model_reader import ModelReader

STAND_IN = Path(__file__).with_name("stand_in.py")
PAPER = {
    "tpa": ("T6", {"n_head": 47, "head_dim": 64, "rank": 2, "q_rank": 6}),
    "tpa-kvonly": ("T6_kvonly", {"n_head": 29, "head_dim": 64, "rank": 2}),
    "mha": ("llama-mha", {"n_head": 16}),
    "gqa": ("llama-gqa", {"n_head": 30, "head_dim": 64, "group_size": 15}),
    "mqa": ("llama-gqa", {"n_head": 31, "head_dim": 64, "group_size": 31}),
    "mla": ("llama-mla", {"n_head": 23, "qk_rope_head_dim": 32, "q_lora_rank": 512, "kv_lora_rank": 256}),
}


@pytest.mark.parametrize("mechanism", PAPER)
def test_the_papers_models_are_those_of_the_authors_files(mechanism):
    config = ModelReader().read(["--config", f"configs/paper/medium-{mechanism}.yaml"]).resolved()
    arch, settings = counterpart(config)
    expected_arch, expected = PAPER[mechanism]
    assert arch == expected_arch
    expected |= {"vocab_size": 50304, "n_layer": 24, "n_embd": 1024, "block_size": 1024, "using_groupnorm": False}
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("attention", "arch"),
    [
        (TPAConfig(5, 16, rope_on="heads"), "T6_ropek"),
        (TPAConfig(5, 16, head_norm=True), "T6"),
        (TPAConfig(5, 16, rank_v=3), None),
        (TPAConfig(5, 16, shared_b=True), None),
        (TPAConfig(5, 16, factorized="q"), None),
        (TPAConfig(5, 16, rope_base=500.0), None),
        (TPAConfig(5, 16, rope_fraction=0.5), None),
        (MultiHeadConfig(5, head_dim=16), "llama-gqa"),
        (MultiHeadConfig(4, 2, 16), "llama-gqa"),
        (LatentConfig(3, 16, rope_dim=8, head_norm=True), None),
        (MFAConfig(3, 16), None),
    ],
)
def test_only_equal_models_have_a_counterpart(attention, arch):
    config = T6Config(50, 32, 64, 2, attention, multiple_of=1)
    found = counterpart(config)
    assert (found and found[0]) == arch
    assert counterpart(replace(config, multiple_of=64)) is None  # a wider feed-forward


def test_a_model_file_is_read_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", "what was there")
    before = {name for name in sys.modules if name.startswith("transformers")}
    module = load(STAND_IN)
    assert sys.modules["transformers"] == "what was there"
    assert {name for name in sys.modules if name.startswith("transformers")} == before
    model = module.GPT(module.GPTConfig(vocab_size=9, n_layer=2, n_embd=12, n_head=3, head_dim=4, rank=2, q_rank=3))
    fill_rotary_tables(model, 7, "cpu")
    rotary = [m for m in model.modules() if hasattr(m, "seq_len_cached")]
    assert [m.seq_len_cached for m in rotary] == [7, 7]
    assert model(*torch.zeros(2, 1, 7, dtype=torch.long))[1].isfinite()


def test_a_clone_or_its_folder_of_models(tmp_path):
    (tmp_path / "model").mkdir()
    shutil.copy(STAND_IN, tmp_path / "model" / "T6.py")
    assert find_models(tmp_path) == find_models(str(tmp_path / "model")) == tmp_path / "model"
    with pytest.raises(ValueError, match="has no model/T6.py; expected a clone of https"):
        find_models(tmp_path / "nowhere")


def test_a_file_without_a_model_is_refused(tmp_path):
    (tmp_path / "T6.py").write_text("GPTConfig = dict\n")
    with pytest.raises(ValueError, match="has no class GPT"):
        load(tmp_path / "T6.py")
