"""A run that is killed again and again ends as the undisturbed one."""

import signal

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .killing import final_state, fit_words, run_and_kill
from .test_resume import differences

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def curves(folder):
    (run,) = {path.parent for path in folder.glob("**/events.out.tfevents.*")}
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(("perf/", "memory/"))]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


@pytest.mark.parametrize(("number", "kills"), [(signal.SIGKILL, 20)])
def test_a_run_killed_at_random_moments_ends_as_the_undisturbed_one(tmp_path, prepared, number, kills):
    run_and_kill(fit_words(prepared, tmp_path / "straight"), tmp_path / "straight", 0)
    killed = run_and_kill(fit_words(prepared, tmp_path / "killed"), tmp_path / "killed", kills, number=number)
    assert killed.codes[-1] == 0, killed.output[-1][-3000:]
    assert killed.kills >= kills * 3 // 4, killed.steps  # a machine that is slow at looking may let it finish before
    assert not differences(final_state(tmp_path / "straight"), final_state(tmp_path / "killed"))
    assert final_state(tmp_path / "killed")["global_step"] == 200
    assert curves(tmp_path / "killed") == curves(tmp_path / "straight")
    print(f"killed after a checkpoint of step {killed.steps}")
