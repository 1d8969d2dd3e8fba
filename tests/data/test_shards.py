import numpy as np
import pytest

from lit_t6.data.shards import HEADER_BYTES, ShardWriter, open_shard, token_dtype, write_shard


@pytest.mark.parametrize(("dtype", "magic", "version"), [("<u2", 20240520, 1), ("<u4", 20240801, 7)])
def test_format_is_llm_cs(tmp_path, dtype, magic, version):
    tokens = np.array([1, 2, np.iinfo(dtype).max], dtype=dtype)
    write_shard(tmp_path / "a.bin", tokens)
    raw = (tmp_path / "a.bin").read_bytes()
    assert np.frombuffer(raw[:12], dtype="<i4").tolist() == [magic, version, 3]
    assert len(raw) == HEADER_BYTES + tokens.nbytes
    assert open_shard(tmp_path / "a.bin", 3).tolist() == tokens.tolist()


def test_type_follows_the_vocabulary():
    assert token_dtype(65536) == np.uint16
    assert token_dtype(65537) == np.uint32


def test_documents_cross_shards(tmp_path):
    writer = ShardWriter(tmp_path, "train", 1000, shard_tokens=5)
    for start, length in ((0, 3), (3, 9), (12, 1)):
        writer.add(np.arange(start, start + length))
    files = writer.close()
    assert [(path.name, count) for path, count in files] == [
        ("train_00000.bin", 5),
        ("train_00001.bin", 5),
        ("train_00002.bin", 3),
    ]
    assert np.concatenate([open_shard(path, count) for path, count in files]).tolist() == list(range(13))


def test_damaged_shards_are_refused(tmp_path):
    path = tmp_path / "a.bin"
    with pytest.raises(ValueError, match="no such shard"):
        open_shard(path)
    write_shard(path, np.arange(100, dtype=np.uint16))
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="holds 100 tokens, but the manifest says 99"):
        open_shard(path, 99)
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="100 tokens need 1,224 bytes, the file has 1,223; it is cut"):
        open_shard(path)
    path.write_bytes(whole[:50])
    with pytest.raises(ValueError, match="50 bytes are too few for a shard's header"):
        open_shard(path)
    path.write_bytes(b"\x01" + whole[1:])
    with pytest.raises(ValueError, match="not a token shard: magic"):
        open_shard(path)


def test_other_types_are_refused(tmp_path):
    with pytest.raises(ValueError, match="tokens of type int64 do not fit"):
        write_shard(tmp_path / "a.bin", np.arange(3))
