import pytest

from lit_t6.command_line.parsing import load_yaml

MQA = {"class_path": "lit_t6.attention.MultiHeadConfig", "init_args": {"num_heads": None, "num_kv_heads": 1}}


@pytest.mark.parametrize("given", ["{attention: MQA}", "{attention: {class_path: MQA}}"])
def test_yaml_may_use_short_names(given):
    assert load_yaml(f"model: {given}") == {"model": {"attention": MQA}}


def test_settings_beside_a_short_name_win():
    loaded = load_yaml("model: {attention: {class_path: MQA, init_args: {num_heads: 3}}}")
    assert loaded["model"]["attention"]["init_args"] == {"num_heads": 3, "num_kv_heads": 1}
    untouched = "{model: {attention: {class_path: lit_t6.attention.TPAConfig}}, data: 1}"
    assert load_yaml(untouched)["model"]["attention"] == {"class_path": "lit_t6.attention.TPAConfig"}
