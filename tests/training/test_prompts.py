import pytest

from lit_t6.training.prompts import read_prompts


def test_a_prompt_a_line(tmp_path):
    (tmp_path / "p.txt").write_bytes("  Ünïcode \r\n\n \nsecond".encode())
    assert read_prompts(tmp_path / "p.txt") == ["  Ünïcode ", "second"]
    (tmp_path / "p.jsonl").write_text('{"prompt": "two\\nlines", "id": 1}\n\n{"prompt": "second"}\n')
    assert read_prompts(tmp_path / "p.jsonl") == ["two\nlines", "second"]
    (tmp_path / "p.jsonl").write_text('{"prompt": ""}\n{"prompt": "second"}\n')
    assert read_prompts(tmp_path / "p.jsonl") == ["", "second"]  # "" begins a new document


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", None, "p.txt: no such file of prompts; expected one prompt a line"),
        ("p.txt", b"", "p.txt: holds no prompt; expected one a line"),
        ("p.txt", b" \n\n", "p.txt: holds no prompt"),
        ("p.txt", b"\xff", "p.txt: not UTF-8 text"),
        ("p.jsonl", b"", "p.jsonl: holds no prompt"),
        ("p.jsonl", b'{"prompt": "a"}\n{"text": "b"}', "p.jsonl, line 2: expected text under the key 'prompt', found"),
    ],
)
def test_files_without_prompts_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(tmp_path / name)
