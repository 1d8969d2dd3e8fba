import pytest

from lit_t6.training.planning.facts import facts_from
from lit_t6.training.planning.fit_reader import FitReader


@pytest.fixture(scope="module")
def reader():
    return FitReader()


def test_flops_are_those_of_training_and_validations(reader, prepared):
    words = [f"--data.path={prepared}", "--model.max_seq_len=32", "--trainer.max_steps=10", "--data.eval_windows=4"]
    settings = reader.read(["--config=configs/quickstart.yaml", *words, "--trainer.val_check_interval=4"])
    facts = facts_from(settings)
    assert facts.num_evaluated == 3 * 4 * 32, "after steps 4, 8 and 10"
    forward = settings.model.flops_per_token(32)
    assert facts.flops == pytest.approx(forward * (3 * facts.num_tokens + facts.num_evaluated))


@pytest.mark.parametrize(
    ("words", "evaluated"),
    [
        (["--trainer.limit_val_batches=0"], 0),
        (["--trainer.val_check_interval=0.5"], 1),
        (["--trainer.val_check_interval=4", "--data.global_batch_size=64"], 3),  # counts steps
        (["--trainer.val_check_interval=4", "--trainer.accumulate_grad_batches=2"], 5),  # counts batches
        (["--data.path=nowhere"], 0),
    ],
)
def test_validations(reader, prepared, words, evaluated):
    base = [f"--data.path={prepared}", "--model.max_seq_len=32", "--trainer.max_steps=10", "--data.eval_windows=1"]
    facts = facts_from(reader.read(["--config=configs/quickstart.yaml", *base, *words]))
    assert facts.num_evaluated == 32 * evaluated


def test_epochs_are_counted_where_the_data_is(reader, prepared):
    words = ["--config=configs/quickstart.yaml", "--model.max_seq_len=32", "--trainer.max_steps=-1"]
    here = facts_from(reader.read([*words, "--trainer.max_epochs=2", f"--data.path={prepared}"]))
    assert here.num_steps % 2 == 0
    assert here.num_steps > 10
    nowhere = facts_from(reader.read([*words, "--trainer.max_epochs=2", "--data.path=nowhere"]))
    timed = facts_from(reader.read([*words, "--trainer.max_time=00:01:00:00", f"--data.path={prepared}"]))
    for facts in (nowhere, timed):
        assert (facts.num_steps, facts.num_tokens, facts.num_evaluated, facts.flops) == (None, None, None, None)
