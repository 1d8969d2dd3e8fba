import json
import re

import pytest

from lit_t6.cli import main, run
from lit_t6.data import load_tokenizer
from lit_t6.model import StepMode
from lit_t6.training import read_checkpoint, write_checkpoint
from lit_t6.training.generate import Step, stop_strings
from lit_t6.training.streaming import StopFilter

from .runs import MHA, fit


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, prepared):
    folder = tmp_path_factory.mktemp("trained")
    _, trainer = fit(folder, prepared, MHA, max_steps=2, logger=False, limit_val_batches=0, barebones=False)
    trainer.save_checkpoint(folder / "last.ckpt")
    return str(folder / "last.ckpt")


def generate(checkpoint, *words):
    return run(["generate", "--ckpt_path", checkpoint, "--max_new_tokens", "9", "--seed", "1", *words])


def test_prompts_and_samples_in_one_batch(checkpoint, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("The \n\nÜber a longer one\n")
    words = ["--prompts_file", str(tmp_path / "prompts.txt"), "--num_samples", "2"]
    text = generate(checkpoint, *words, "--output", str(tmp_path / "new" / "texts.jsonl"))
    out, err = capsys.readouterr()
    assert out.endswith(text + "\n")
    lines = [json.loads(line) for line in (tmp_path / "new" / "texts.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == ["The ", "The ", "Über a longer one", "Über a longer one"]
    titles = [f"=== prompt {p}, sample {s} ===\n" for p in (1, 2) for s in (1, 2)]
    assert text == "\n\n".join(t + line["prompt"] + line["completion"] for t, line in zip(titles, lines, strict=True))
    assert lines[0]["completion"] != lines[1]["completion"]
    total = sum(line["tokens"] for line in lines)
    figures = r"tokens in [\d.]+ s, [\d.,]+ tokens/s; cache: 512 bytes a token, ([\d,]+) bytes for 4 × (\d+) tokens"
    nbytes, capacity = re.search(rf"^{total} {figures}$", err, re.M).groups()
    assert int(nbytes.replace(",", "")) == 4 * int(capacity) * 512
    assert generate(checkpoint, *words) == text
    capsys.readouterr()
    in_parts = generate(checkpoint, *words, "--batch_size", "1")
    assert "bytes for 1 × " in capsys.readouterr().err
    first, second = re.findall(r"The (.*?)\n\n", in_parts, re.S)
    assert first != second  # each batch has random numbers of its own


def test_a_batch_writes_what_each_prompt_gives_alone(checkpoint, tmp_path):
    prompts = ["The ", "a statement is", "x"]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    greedy = ["--temperature", "0", "--max_new_tokens", "40"]  # longer than the context of 32
    alone = [generate(checkpoint, "--prompt", prompt, *greedy) for prompt in prompts]
    for size in ([], ["--batch_size", "2"]):
        output = tmp_path / "texts.jsonl"
        written = ["--output", str(output), "--overwrite=true"]
        generate(checkpoint, "--prompts_file", str(tmp_path / "prompts.jsonl"), *greedy, *size, *written)
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        assert [line["prompt"] + line["completion"] for line in lines] == alone


def test_what_is_typed_as_stop_string_is_one_unless_it_is_a_list():
    assert stop_strings('["a", "b"]') == ["a", "b"]
    for typed in ("[END]", "[", "###", "[1, 2]", "null", "{}", "true"):
        assert stop_strings(typed) == [typed]


@pytest.mark.parametrize("stop", ["[END]", "[1, 2]", "null", "###"])
def test_the_command_line_takes_stop_strings_as_they_are(checkpoint, stop, monkeypatch):
    seen = []

    class Seen(StopFilter):
        def __init__(self, stop):
            seen.append(stop)
            super().__init__(stop)

    monkeypatch.setattr("lit_t6.training.streaming.StopFilter", Seen)
    for words in (["--stop", stop], [f"--stop={stop}"]):
        generate(checkpoint, "--prompt", "The ", *words)
    assert seen
    assert all(one == [stop] for one in seen)


def test_stop_strings(checkpoint):
    whole = generate(checkpoint, "--prompt", "The ")
    stop = whole[5:7]
    expected = "The " + whole[4:].partition(stop)[0]
    for typed in (json.dumps([stop]), json.dumps(["###", stop])):
        assert generate(checkpoint, "--prompt", "The ", "--stop", typed) == expected
    assert generate(checkpoint, "--prompt", "The ", "--stop", "###") == whole


def test_what_is_not_read_of_a_long_prompt_is_told(checkpoint, capsys):
    prompt = "~" * 40  # too rare for a token of its own: 40 of them, and the end-of-text before
    assert generate(checkpoint, "--prompt", prompt).startswith(prompt)
    told = "prompt 1, sample 1: the first 9 tokens are not read: the model sees 32 at most."
    assert told in capsys.readouterr().err


@pytest.fixture
def tokenizers(prepared, tmp_path):
    """The tokenizer of the data, written otherwise; one of as many tokens that splits otherwise; one of one more."""
    texts = {"same": load_tokenizer(prepared / "tokenizer.json").to_str(pretty=True)}
    other, more = json.loads(texts["same"]), json.loads(texts["same"])
    other["model"]["merges"].reverse()
    more["model"]["vocab"]["one more"] = 400
    texts |= {"other": json.dumps(other), "more": json.dumps(more)}
    for name, text in texts.items():
        (tmp_path / f"{name}.json").write_text(text)
    return {name: str(tmp_path / f"{name}.json") for name in texts}


def test_no_other_tokenizer_than_that_of_the_checkpoint_is_taken(checkpoint, tokenizers, capsys):
    greedy = ["--prompt", "The ", "--temperature", "0"]
    assert generate(checkpoint, *greedy, "--tokenizer", tokenizers["same"]) == generate(checkpoint, *greedy)
    capsys.readouterr()
    assert main(["generate", "--ckpt_path", checkpoint, "--tokenizer", tokenizers["other"]]) == 1
    out, error = capsys.readouterr()
    assert f"error: {tokenizers['other']}: not the tokenizer that {checkpoint} was trained with" in error
    assert "The checkpoint holds its own: leave --tokenizer out." in error
    assert out == ""


def test_a_checkpoint_without_tokenizer_takes_one_of_its_vocabulary_only(checkpoint, tokenizers, tmp_path, capsys):
    path = str(tmp_path / "bare.ckpt")
    write_checkpoint(path, read_checkpoint(checkpoint).model())
    assert generate(path, "--prompt", "The ", "--tokenizer", tokenizers["same"]).startswith("The ")
    assert main(["generate", "--ckpt_path", path, "--tokenizer", tokenizers["more"]]) == 1
    error = capsys.readouterr().err
    assert f"{tokenizers['more']} has 401 tokens, but the model has vocab_size=400: it is not the tokenizer" in error


def test_the_ways_to_compute_a_step_are_those_of_the_model():
    assert Step == StepMode


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompts_file", "none.txt"], "error: none.txt: no such file of prompts"),
        (["--prompts_file", "a", "--prompt", "b"], "error: --prompt and --prompts_file are both given"),
        (["--device", "meta"], "error: device=meta: expected auto, cpu, cuda or one of several, such as cuda:1"),
        (["--num_samples", "0"], "error: num_samples must be at least 1, got 0"),
        (["--batch_size", "0"], "error: batch_size must be at least 1, got 0"),
        (["--max_new_tokens", "-1"], "error: max_new_tokens must be at least 1, got -1"),
        (["--max_new_tokens", "0"], "error: max_new_tokens must be at least 1, got 0"),
        (
            ["--prompt", "It", "was", "the"],
            "error: 'was' is not an option: quote a prompt of several words, as in --pr",
        ),
        (["--stop", '[""]'], "error: stop: an empty string would stop every text"),
        (
            ["--output", "configs"],
            "error: --output configs: is a folder; name a file in it, such as configs/texts.jsonl",
        ),
        (["--output", "README.md"], "error: README.md: exists already; give another --output, or --overwrite true to"),
    ],
)
def test_errors_of_the_user_are_one_line(words, message, capsys):
    assert main(["generate", "--ckpt_path", "none.ckpt", *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
