import pytest

from lit_t6.cli import main, run
from lit_t6.command_line.parsing import check_that_files_are_there, load_yaml

MQA = {"class_path": "lit_t6.attention.MultiHeadConfig", "init_args": {"num_heads": None, "num_kv_heads": 1}}


@pytest.mark.parametrize("given", ["{attention: MQA}", "{attention: {class_path: MQA}}"])
def test_yaml_may_use_short_names(given):
    assert load_yaml(f"model: {given}") == {"model": {"attention": MQA}}


def test_settings_beside_a_short_name_win():
    loaded = load_yaml("model: {attention: {class_path: MQA, init_args: {num_heads: 3}}}")
    assert loaded["model"]["attention"]["init_args"] == {"num_heads": 3, "num_kv_heads": 1}
    untouched = "{model: {attention: {class_path: lit_t6.attention.TPAConfig}}, data: 1}"
    assert load_yaml(untouched)["model"]["attention"] == {"class_path": "lit_t6.attention.TPAConfig"}


@pytest.mark.parametrize("config", ["~/x.yaml", "file://HOME/x.yaml", "HOME/x.yaml"])
def test_a_config_is_named_as_the_parser_opens_it(options, monkeypatch, tmp_path, config):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.yaml").write_text("trainer: {max_steps: 2}")
    words = [word for word in options if "max_steps" not in word]
    assert run(["fit", *words, f"--config={config.replace('HOME', str(tmp_path))}"]).trainer.global_step == 2


def test_a_config_that_is_not_there_is_named_as_it_was_typed(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["fit", "--config=~/x.yaml"]) == 1
    assert capsys.readouterr().err.startswith("error: ~/x.yaml: no such configuration file")


@pytest.mark.parametrize("config", ["s3://bucket/x.yaml", "memory://x.yml", "trainer: {}\n# of x.yaml"])
def test_what_is_no_file_is_left_to_the_parser(config):
    check_that_files_are_there(["--config", config])
