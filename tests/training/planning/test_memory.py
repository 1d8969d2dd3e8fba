import pytest

from lit_t6.training.planning.fit_reader import FitReader
from lit_t6.training.planning.memory import memory_of


@pytest.fixture(scope="module")
def reader():
    return FitReader()


@pytest.mark.parametrize(("mechanism", "gib"), [("tpa", 16.1), ("mha", 13.0)])
def test_it_is_what_was_measured(reader, mechanism, gib):
    """The README's table, of an H200."""
    words = [f"--config=configs/paper/small-{mechanism}.yaml", "--data.batch_size=24", "--trainer.devices=1"]
    assert memory_of(reader.read(words)) / 2**30 == pytest.approx(gib, rel=0.05)


def test_what_changes_it(reader):
    def of(*words):
        return memory_of(reader.read(["--config=configs/quickstart.yaml", *words]))

    plain = of()
    assert of("--data.batch_size=32") == pytest.approx(2 * plain, rel=0.1)
    assert of("--model.num_layers=8") > 1.5 * plain
    assert of("--model.recompute=full") < of("--model.recompute=selective") < plain
    assert of("--trainer.precision=bf16-mixed") < plain
    assert of("--trainer.devices=2") > plain, "gradients have buffers"


def test_the_random_state_is_left_alone(reader):
    import torch

    before = torch.random.get_rng_state()
    memory_of(reader.read(["--config=configs/quickstart.yaml"]))
    assert torch.equal(before, torch.random.get_rng_state())
