import json
from dataclasses import dataclass

import pytest

from lit_t6.attention import MultiHeadConfig, TPAConfig
from lit_t6.model import T6Config


@pytest.mark.parametrize("attention", [TPAConfig(3, 16, 4, 1, 2), MultiHeadConfig(None, 2)])
def test_plain_form_and_back(attention):
    config = T6Config(d_model=128, attention=attention, init="variance", init_variance=0.1)
    plain = json.loads(json.dumps(config.to_dict()))
    assert T6Config.from_dict(plain) == config


def test_plain_form_of_a_stranger_is_refused():
    plain = T6Config().to_dict()
    plain["attention"]["class_path"] = "os.system"
    with pytest.raises(ValueError, match="'os.system' is not a mechanism of lit_t6.attention"):
        T6Config.from_dict(plain)


def test_a_mechanism_that_a_checkpoint_could_not_name_is_refused():
    @dataclass
    class MyTPAConfig(TPAConfig):
        pass

    with pytest.raises(ValueError, match="MyTPAConfig is not one of lit_t6.attention, so no checkpoint"):
        T6Config(attention=MyTPAConfig(2)).to_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
        ({"num_layers": -1}, "num_layers must be at least 1, got -1"),
        ({"attention": "TPA"}, "attention must be the configuration of a mechanism, .* got str"),
        ({"init": "variance"}, "init=variance needs init_variance"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        T6Config(**options)


def test_flops_are_twice_the_weights_and_the_visible_half_of_attention():
    config = T6Config(vocab_size=100, d_model=64, num_layers=3, attention=MultiHeadConfig(4, head_dim=16))
    attention = 2 * 2 * 4 * 16 * (1 + 2 + 3 + 4) / 4  # scores and sums, over 1, 2, 3 and 4 keys
    assert config.flops_per_token(4) == 2 * config.num_parameters() + 3 * attention
