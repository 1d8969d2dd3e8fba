import argparse
import json

import pytest
import torch
from safetensors.torch import save_file

from lit_t6.interop import read_upstream

CONFIG = {"n_layer": 1, "n_embd": 4}


@pytest.fixture
def weights():
    return {"a": torch.randn(2, 3), "b": torch.randn(4)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def check(read, weights):
    state_dict, config = read
    assert config == CONFIG
    assert state_dict.keys() == weights.keys()
    assert all(torch.equal(state_dict[name], weights[name]) for name in weights)


def write_shards(folder, weights, suffix):
    for index, (name, weight) in enumerate(weights.items()):
        path = folder / f"shard{index}{suffix}"
        save_file({name: weight}, path) if suffix == ".safetensors" else torch.save({name: weight}, path)
    stem = "model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin"
    places = {name: f"shard{index}{suffix}" for index, name in enumerate(weights)}
    (folder / f"{stem}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_folders(folder, weights):
    with pytest.raises(ValueError, match=r"none of model.safetensors, .* is there"):
        read_upstream(folder)
    torch.save(weights, folder / "pytorch_model.bin")
    check(read_upstream(folder), weights)
    check(read_upstream(folder / "pytorch_model.bin"), weights)  # the configuration is beside it
    (folder / "config.json").rename(folder / "other.json")
    with pytest.raises(ValueError, match=r"config.json: no such file \(--config_json names another\)"):
        read_upstream(folder)
    check(read_upstream(folder, folder / "other.json"), weights)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards(folder, weights, suffix):
    write_shards(folder, weights, suffix)
    check(read_upstream(folder), weights)
    (folder / f"shard0{suffix}").rename(folder / f"shard1{suffix}")
    with pytest.raises(ValueError, match=f"names the shard 'shard0{suffix}', but no such file"):
        read_upstream(folder)
    (folder / f"shard1{suffix}").rename(folder / f"shard0{suffix}")
    write_shards(folder / ".", {"b": weights["b"]}, suffix)
    index = next(folder.glob("*.index.json"))
    index.write_text(json.dumps({"weight_map": {"a": f"shard0{suffix}", "b": f"shard0{suffix}"}}))
    with pytest.raises(ValueError, match=f"promises a in shard0{suffix}, but it is not there"):
        read_upstream(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../secret.bin"}}))
    with pytest.raises(ValueError, match="no such file is beside it"):
        read_upstream(folder)


@pytest.mark.parametrize("zipped", [True, False])
def test_files(tmp_path, weights, zipped):
    path = tmp_path / "weights.pt"
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"holds weights without a configuration, .*--config_json"):
        read_upstream(path)
    (tmp_path / "given.json").write_text(json.dumps(CONFIG))
    check(read_upstream(path, tmp_path / "given.json"), weights)
    for key in ("model_args", "config"):
        torch.save({"model": weights, key: CONFIG, "iter_num": 3}, path, _use_new_zipfile_serialization=zipped)
        check(read_upstream(path), weights)
    save_file(weights, tmp_path / "weights.safetensors")
    check(read_upstream(tmp_path / "weights.safetensors", tmp_path / "given.json"), weights)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}q\x00."])
def test_damaged_files(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged one|holds nothing"):
        read_upstream(path)


def test_what_is_refused(tmp_path, weights):
    with pytest.raises(ValueError, match="no such file or folder"):
        read_upstream(tmp_path / "nowhere")
    path = tmp_path / "w.pt"
    torch.save({"model": weights, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(ValueError, match="could run any code, and is refused"):
        read_upstream(path)
    torch.save({"optimizer": {}, "iter_num": 3}, path)
    with pytest.raises(ValueError, match="holds optimizer, iter_num; expected a state dict"):
        read_upstream(path)
    torch.save([1], path)
    with pytest.raises(ValueError, match="expected a state dict, got list"):
        read_upstream(path)
    torch.save(weights, path)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad.json: not JSON"):
        read_upstream(path, tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ValueError, match="expected a JSON object, got list"):
        read_upstream(path, tmp_path / "bad.json")
