from lit_t6.command_line.options import arrange, option_value


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


def test_option_values():
    assert option_value([], "--a") is None
    assert option_value(["--a"], "--a") is None
    assert option_value(["--a", "1", "--a=2", "--b", "3"], "--a") == "2"
