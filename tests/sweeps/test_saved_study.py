import shutil
from dataclasses import replace

import pytest
import yaml

from lit_t6.sweeps import cells_of, load_study
from lit_t6.sweeps.cells import fit_options
from lit_t6.sweeps.saved_study import save_study

from .studies import QUICKSTART, RANK, RANK_QUICK, write

SHIPPED = [
    [RANK],
    [RANK, RANK_QUICK],
    ["configs/sweep/heads.yaml"],
    ["configs/sweep/heads.yaml", "configs/sweep/heads-quick.yaml"],
    ["configs/sweep/search.yaml"],
    ["configs/sweep/search.yaml", "configs/sweep/search-quick.yaml"],
]


@pytest.mark.parametrize("files", SHIPPED, ids=lambda files: str(files[-1]))
def test_what_is_kept_is_the_same_study(tmp_path, files):
    read = load_study(files)
    again = load_study([save_study(read, tmp_path / "here")])
    assert replace(again, files=read.files, configs=read.configs) == read
    assert again.digest() == read.digest()
    moved = shutil.move(tmp_path / "here", tmp_path / "there")
    assert load_study([moved / "study.yaml"]).digest() == read.digest()


def test_all_that_a_file_may_say(tmp_path):
    (tmp_path / "other").mkdir()
    one = write(tmp_path, "model: {d_model: 64}\n", "size.yaml")
    two = write(tmp_path / "other", "model: {d_model: 96}\n", "size.yaml")
    text = f"""\
name: all
configs: [{QUICKSTART}]
search:
  size:
    type: categorical
    choices: {{a: {{configs: {one}}}, b: {{configs: {two}, options: {{model.num_layers: 1}}}}}}
  model.optimizer.lr: {{type: float, low: 1e-4, high: 1e-2, log: true, when: {{size: a}}}}
  layers: {{option: model.num_layers, type: int, low: 1, high: 5, step: 2}}
  model.attention.num_kv_heads: {{type: categorical, choices: [null, 2]}}
sampler: {{name: random, seed: 3}}
pruner: {{name: hyperband, reduction_factor: 2, every_n_tokens: 100}}
time_limit: 90s
match: parameters
match_to: 500_000
"""
    read = load_study([write(tmp_path, text)])
    folder = tmp_path / "kept"
    again = load_study([save_study(read, folder)])
    assert again.digest() == read.digest()
    assert (again.sampler, again.pruner, again.match_to, again.time_limit) == (
        *(read.sampler, read.pruner, 500_000, 90),
    )
    assert again.search[1:] == read.search[1:]
    names = ["quickstart.yaml", "size-1.yaml", "size.yaml"]
    assert sorted(path.name for path in (folder / "configs").iterdir()) == names


def test_keeping_it_again_changes_nothing(tmp_path):
    path = save_study(load_study([RANK, RANK_QUICK]), tmp_path)
    before = path.read_bytes()
    kept = load_study([path])
    assert save_study(kept, tmp_path) == path
    assert path.read_bytes() == before
    assert yaml.safe_load(before)["seeds"] == [0, 1]


def test_files_of_cells_are_kept(tmp_path):
    mha = str(QUICKSTART.parent / "attention" / "mha.yaml")
    text = f"configs: {QUICKSTART}\ncells: {{mha: {{configs: {mha}, options: {{model.d_model: 64}}}}, tpa: {{}}}}\n"
    read = load_study([write(tmp_path, text)])
    again = load_study([save_study(read, tmp_path / "kept")])
    words = fit_options(again, cells_of(again)[0])
    assert words[1::2][:2] == [str(tmp_path / "kept" / "configs" / name) for name in ("quickstart.yaml", "mha.yaml")]
