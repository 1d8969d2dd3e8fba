"""A run that is killed again and again ends as the undisturbed one."""

import signal

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .endless import other_ranks
from .killing import final_state, fit_words, run_and_kill, went_on_after
from .test_resume import differences

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def curves(folder):
    (run,) = {path.parent for path in folder.glob("**/events.out.tfevents.*")}
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(("perf/", "memory/"))]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


@pytest.mark.parametrize(("number", "kills"), [(signal.SIGKILL, 20), (signal.SIGTERM, 10)])
def test_a_run_killed_at_random_moments_ends_as_the_undisturbed_one(tmp_path, prepared, number, kills):
    run_and_kill(fit_words(prepared, tmp_path / "straight"), tmp_path / "straight", 0)
    saves = (1, 5) if number == signal.SIGKILL else (1, 3)  # after SIGTERM, what was done since the last save is kept
    words = fit_words(prepared, tmp_path / "killed")
    aim = 4 if number == signal.SIGKILL else 0  # SIGTERM does not come in the middle of a save
    killed = run_and_kill(words, tmp_path / "killed", kills, number=number, saves=saves, aim=aim)
    assert killed.codes[-1] == 0, killed.output[-1][-3000:]
    assert killed.kills >= kills * 3 // 4, killed.steps  # a machine that is slow at looking may let it finish before
    assert not differences(final_state(tmp_path / "straight"), final_state(tmp_path / "killed"))
    assert final_state(tmp_path / "killed")["global_step"] == 200
    assert curves(tmp_path / "killed") == curves(tmp_path / "straight")
    if number == signal.SIGTERM:
        assert set(killed.codes[:-1]) == {75}, killed.codes
    else:
        assert killed.cut, "no kill came in the middle of a save"
        # Odd ones are those of `--resume`: the others are written at every second step.
        assert any(step % 2 for step in went_on_after(killed)), killed.steps
    print(f"killed after a checkpoint of step {killed.steps}, {killed.cut} times in the middle of a save")


def test_two_ranks_of_which_a_random_one_is_killed_end_as_the_undisturbed_two(tmp_path, prepared):
    """The other ends within a minute each time, and the same command goes on."""
    words = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    words += ["--checkpoint.every_n_train_steps=20"]  # they mostly go on from what `--resume` keeps, at every third

    def one_of_them(process, chance):
        others = other_ranks(process.pid, str(tmp_path / "killed"))
        assert others
        return chance.choice([process.pid, *others])

    straight = fit_words(prepared, tmp_path / "straight", *words, max_steps=60)
    run_and_kill(straight, tmp_path / "straight", 0)
    command = fit_words(prepared, tmp_path / "killed", *words, max_steps=60)
    killed = run_and_kill(command, tmp_path / "killed", 5, victim=one_of_them, patience=60.0)
    assert killed.codes[-1] == 0, killed.output[-1][-3000:]
    assert killed.kills == 5, killed.steps
    assert all(code != 0 for code in killed.codes[:-1]), killed.codes
    assert any(step % 20 for step in went_on_after(killed)), killed.steps
    assert not differences(final_state(tmp_path / "straight"), final_state(tmp_path / "killed"))
    assert curves(tmp_path / "killed") == curves(tmp_path / "straight")
