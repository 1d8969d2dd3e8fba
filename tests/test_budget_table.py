import csv
import io
import json

import pytest

from lit_t6.attention import short_names
from lit_t6.budget_table import COLUMNS
from lit_t6.cli import main, run

MEDIUM, TPA, MHA = "configs/model/medium.yaml", "configs/attention/tpa.yaml", "configs/attention/mha.yaml"


def budget(capsys, *words):
    rows = run(["budget", *words, "--format=json"])
    assert json.loads(capsys.readouterr().out) == rows
    return rows


def test_several_models_over_a_base(capsys):
    tpa, mha = budget(capsys, "--base", MEDIUM, "--config", TPA, f"--config={MHA}", "--context=2048", "--batch_size=8")
    assert [tpa["mechanism"], mha["mechanism"]] == ["TPA (6, 2, 2)", "MHA"]
    assert (tpa["d_model"], tpa["num_layers"], tpa["num_heads"], tpa["head_dim"]) == (1024, 24, 47, 64)
    assert tpa["parameters_per_layer"] == 1024 * 10 * (47 + 64) + 1024 * 47 * 64
    assert tpa["cache_bytes_per_token"] == 2 * 24 * 4 * (47 + 64)
    assert tpa["cache_over_mha"] == tpa["cache_bytes_per_token"] / mha["cache_bytes_per_token"]
    assert mha["cache_gib"] == 2 * 24 * 2 * 1024 * 2048 * 8 / 2**30
    assert mha["decode_attention_flops_per_token"] == 2 * 24 * 2 * 1024 * 2048
    assert mha["model_parameters"] == 50304 * 1024 + 24 * (4 * 1024**2 + 3 * 1024 * 2752)
    assert mha["seq_len"] == 1024


def test_the_paper_at_the_paper_s_sizes(capsys):
    rows = budget(capsys, "-c", "configs/paper/small-tpa.yaml", "-c", "configs/paper/xl-mha.yaml")
    assert [row["model_parameters"] for row in rows] == pytest.approx([124e6, 1.55e9], rel=0.005)
    assert [row["num_heads"] for row in rows] == [34, 25]


def test_without_a_model_every_mechanism_is_compared(capsys):
    rows = budget(capsys)
    heads = {"MHA": 12, "MQA": 23, "GQA": 22, "TPA": 33, "TPA-KVonly": 21, "MLA": 13}
    assert heads.items() <= {row["config"]: row["num_heads"] for row in rows}.items()
    assert [row["config"] for row in rows] == list(short_names())
    assert budget(capsys, "--model.attention", "MQA")[0]["num_heads"] == 23


def test_files_names_and_settings_make_one_model(capsys):
    rows = budget(
        capsys, "--config", f"{MEDIUM},TPA,rank_q=4,model.num_layers=2", "--config", f"{TPA},{MHA}", "--base", MEDIUM
    )
    assert [row["mechanism"] for row in rows] == ["TPA (4, 2, 2)", "MHA"]
    assert [row["num_layers"] for row in rows] == [2, 24]


def test_typed_options_hold_for_all_and_settings_for_those_that_have_them(capsys):
    words = ["--config", TPA, "--config", MHA, "--config", "TPA,rank_q=3"]
    rows = budget(
        capsys, "--model.d_model", "512", *words, "--model.attention.rank_q=4", "--model.attention.head_dim=32"
    )
    assert [row["mechanism"] for row in rows] == ["TPA (4, 2, 2)", "MHA", "TPA (3, 2, 2)"]
    assert {(row["d_model"], row["head_dim"]) for row in rows} == {(512, 32)}


def test_types_of_the_cache(capsys):
    two, four = (budget(capsys, "-c", "TPA", f"--cache_dtype={dtype}")[0] for dtype in ("float16", "float32"))
    assert 2 * two["cache_bytes_per_token"] == four["cache_bytes_per_token"]
    assert two["cache_numbers_per_token_per_layer"] == four["cache_numbers_per_token_per_layer"]


def test_a_run_s_saved_configuration_is_read(capsys, tmp_path):
    with pytest.raises(SystemExit):
        run(["fit", "--config=configs/quickstart.yaml", "--model.attention.rank_q=3", "--print_config"])
    (tmp_path / "config.yaml").write_text(capsys.readouterr().out)
    (row,) = budget(capsys, "--config", str(tmp_path / "config.yaml"))
    assert (row["mechanism"], row["d_model"], row["num_layers"]) == ("TPA (3, 2, 2)", 128, 4)


def test_table_and_markdown_show_the_same_figures(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    words = ["budget", "--config", "configs/paper/medium-tpa.yaml", "--config", "configs/paper/xl-tpa.yaml"]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert main([*words, "--format=markdown"]) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [len(line) for line in lines] == [1 + len(COLUMNS)] * 4
    assert lines[3][0] == "TPA (6, 2, 2) [configs/paper/xl-tpa.yaml]"  # what tells it from the other
    assert lines[2][1:4] == ["47 × 64", "4,216,832", "1.005"]
    for line in lines[2:]:
        assert any("  ".join(line).split() == shown.split() for shown in table.splitlines())
    assert "d_model 1,024 or 1,600, 24 or 48 layers." in table


def test_mechanisms_of_unequal_size_are_marked(capsys):
    words = ["budget", "-c", "MHA", "-c", "GQA", "-c", "TPA,num_heads=null", "--model.attention.num_heads=40"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    marked = {line.split()[0]: " ! " in line for line in lines if " × 64 " in line}
    assert marked == {"MHA": True, "GQA": True, "TPA": False}
    assert (
        "! not 4·d_model² weights a layer: no fair comparison. Times as many: MHA 3.33, GQA (2 KV heads) 1.75." in lines
    )
    assert main(["budget", "--format=markdown"]) == 0
    assert "!" not in capsys.readouterr().out


def test_a_name_that_came_out_as_another_mechanism_is_told(capsys):
    assert main(["budget", "--model.attention.num_heads=2", "--format=markdown"]) == 0
    names = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert names[2:5] == ["| MHA", "| MQA", "| GQA = MHA"]


def test_csv_has_the_fields_of_json(capsys):
    rows = run(["budget", "-c", "MHA", "-c", "TPA", "--format=csv"])
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert read == [{key: str(value) for key, value in row.items()} for row in rows]


def test_no_data_and_no_weights_are_needed(capsys):
    (row,) = budget(capsys, "-c", "MHA", "--model.d_model=16384", "--model.num_layers=10000")
    assert row["model_parameters"] > 1e12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.d_modle=64"], "there is no option --model.d_modle; did you mean --model.d_model?"),
        (["--d_model=64"], "there is no option --d_model; did you mean --model.d_model?"),
        (["--seqlen=64"], "there is no option --seqlen; did you mean --seq_len?"),
        (
            ["--model.attention.rank_qq=3"],
            "no model compared has a setting model.attention.rank_qq; did you mean rank_q?",
        ),
        (
            ["-c", "MHA", "--model.attention.rank_q=3"],
            "no model compared has a setting model.attention.rank_q. There are",
        ),
        (["-c", "TPA,rank=3"], "TPAConfig has no setting 'rank'; did you mean rank_"),
        (["-c", "TPX"], "'TPX' is neither a configuration file nor a mechanism; did you mean TPA? There are"),
        (["-c", "TPA,,MHA"], "'TPA,,MHA': expected files, a mechanism and KEY=VALUE joined by commas"),
        (["-c", "nowhere.yaml"], "nowhere.yaml: no such configuration file."),
        (["-c", "TPA,head_dim=9"], "head_dim=9 is odd"),
        (["-c", "TPA,head_dim=4096"], "no head count meets the budget"),
        (["--context=0"], "context must be at least 1, got 0."),
        (["--cache_dtype=bfloat"], "cache_dtype: 'bfloat' is not one of its values; did you mean bfloat16?"),
        (["--model.d_model"], "--model.d_model needs a value."),
    ],
)
def test_errors_are_one_line(words, message, capsys):
    assert main(["budget", *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("text", ["model: {d_modle: 64}", "modell: {d_model: 64}"])
def test_an_unknown_key_in_a_file_is_named(text, capsys, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    assert main(["budget", "--config", str(tmp_path / "a.yaml")]) == 1
    assert "did you mean model.d_model?" in capsys.readouterr().err


def test_a_mechanism_that_does_not_fit_is_left_out_aloud(capsys):
    assert main(["budget", "--model.d_model=128", "--model.attention.head_dim=128"]) == 0
    shown = capsys.readouterr()
    assert "left out: TPA (6, 2, 2): no head count meets the budget" in shown.err
    assert "MHA " in shown.out
    assert main(["budget", "--model.attention.head_dim=4096"]) == 1
    assert "error: no mechanism meets the parameter budget" in capsys.readouterr().err


def test_the_settings_of_a_mechanism_are_listed(capsys):
    with pytest.raises(SystemExit) as stop:
        run(["budget", "--model.attention.help", "TPA"])
    assert stop.value.code == 0
    assert "--model.attention.rank_q" in capsys.readouterr().out
