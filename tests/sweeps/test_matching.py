import pytest

from lit_t6.model_reader import ModelReader
from lit_t6.sweeps import cells_of
from lit_t6.sweeps.cells import fit_options
from lit_t6.sweeps.matching import match_heads

from .studies import study


def parameters(read):
    reader = ModelReader()
    return {cell.name: reader.read_of_fit(fit_options(read, cell)).num_parameters() for cell in cells_of(read)}


def test_mechanisms_of_equal_size(tmp_path):
    text = """\
baseline: tpa
match: parameters
cells:
  tpa: {model.attention: TPA, model.attention.num_heads: 10}
  mha: {model.attention: MHA}
  gqa: {model.attention: GQA}
  narrow: {model.d_model: 120}
"""
    counted = parameters(study(tmp_path, text))
    for name, count in counted.items():
        assert count == pytest.approx(counted["tpa"], rel=0.02), name


def test_heads_for_a_number_of_parameters(tmp_path):
    read = study(tmp_path, "match: parameters\nmatch_to: 400_000\ncells: {a: {}, b: {model.attention.rank_q: 3}}\n")
    assert all("model.attention.num_heads" in cell.options for cell in cells_of(read))
    for count in parameters(read).values():
        assert count == pytest.approx(400_000, rel=0.01)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.attention.rank_q=300"], "cell 'b': match: parameters: TPA .300, 2, 2.: no head count meets"),
        (
            ["--model.attention.rank_q=300"],
            "raise d_model, leave this cell out, or write match: none and set num_h",
        ),
        (
            ["--model.d_model=128"],
            "cell 'b': match: parameters: without attention the model has .* already, and .* are",
        ),
        (["--model.attention.rank=1"], "cell 'b': TPAConfig has no setting 'rank'"),
    ],
)
def test_refusals_name_the_cell(words, message):
    base = ["--model.d_model=64", "--model.attention.head_dim=16", "--model.num_layers=1", "--model.vocab_size=99"]
    with pytest.raises(ValueError, match=message):
        match_heads({"a": base, "b": [*base, *words]}, "a", None)


def test_the_one_that_keeps_its_heads_may_set_them():
    words = ["--model.d_model=64", "--model.attention.head_dim=16", "--model.num_layers=1", "--model.vocab_size=99"]
    with pytest.raises(
        ValueError, match="cell 'a': TPA .300, 2, 2.: no head count meets .*, or set num_heads yourself"
    ):
        match_heads({"a": [*words, "--model.attention.rank_q=300"]}, "a", None)
    with pytest.raises(ValueError, match="cell 'a': match: parameters: .* leave this cell out, or write match: none"):
        match_heads({"a": [*words, "--model.attention.rank_q=300"]}, "a", 60_000)
