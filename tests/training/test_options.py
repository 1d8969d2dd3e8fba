import pytest

from lit_t6.training.options import arrange, explain, load_yaml, nearest, option_value

MQA = {"class_path": "lit_t6.attention.MultiHeadConfig", "init_args": {"num_heads": None, "num_kv_heads": 1}}
KEYS = ["model.d_model", "model.attention", "trainer.max_steps", "model.optimizer.lr"]


def test_configs_come_first_then_the_mechanism_then_the_rest():
    words = [
        "--a=1",
        "--config",
        "x",
        "--model.attention.num_heads=4",
        "--model.attention",
        "MQA",
        "-c",
        "y",
        "--config=z",
    ]
    assert arrange(words) == [
        *("--config", "x", "--config", "y", "--config", "z"),
        *("--model.attention", "lit_t6.attention.MultiHeadConfig"),
        *("--model.attention.num_heads", "null", "--model.attention.num_kv_heads", "1"),
        *("--a=1", "--model.attention.num_heads=4"),
    ]


def test_the_last_mechanism_counts_and_full_names_stay():
    words = ["--model.attention=MQA", "--model.attention.class_path", "lit_t6.attention.TPAConfig"]
    assert arrange(words) == ["--model.attention", "lit_t6.attention.TPAConfig"]
    assert arrange(["--model.attention.help", "GQA"]) == [
        "--model.attention.help",
        "lit_t6.attention.MultiHeadConfig",
    ]


@pytest.mark.parametrize("given", ["{attention: MQA}", "{attention: {class_path: MQA}}"])
def test_yaml_may_use_short_names(given):
    assert load_yaml(f"model: {given}") == {"model": {"attention": MQA}}


def test_settings_beside_a_short_name_win():
    loaded = load_yaml("model: {attention: {class_path: MQA, init_args: {num_heads: 3}}}")
    assert loaded["model"]["attention"]["init_args"] == {"num_heads": 3, "num_kv_heads": 1}
    untouched = "{model: {attention: {class_path: lit_t6.attention.TPAConfig}}, data: 1}"
    assert load_yaml(untouched)["model"]["attention"] == {"class_path": "lit_t6.attention.TPAConfig"}


def test_option_values():
    assert option_value([], "--a") is None
    assert option_value(["--a"], "--a") is None
    assert option_value(["--a", "1", "--a=2", "--b", "3"], "--a") == "2"


def test_nearest():
    assert nearest("d_modle", ["d_model", "lr"]) == "; did you mean d_model?"
    assert nearest("zzz", ["d_model", "lr"]) == "."
    assert nearest("--lr", KEYS) == "; did you mean --model.optimizer.lr?"


def test_a_complaint_that_nobody_knows_is_passed_on_in_one_line():
    assert explain("Something:\n  - odd\n\n", KEYS) == "Something: - odd"
