"""A run that is killed again and again ends as the undisturbed one."""

import signal

import pytest

from .killing import final_state, fit_words, run_and_kill
from .test_resume import differences

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("number", "kills"), [(signal.SIGKILL, 20)])
def test_a_run_killed_at_random_moments_ends_as_the_undisturbed_one(tmp_path, prepared, number, kills):
    run_and_kill(fit_words(prepared, tmp_path / "straight"), tmp_path / "straight", 0)
    killed = run_and_kill(fit_words(prepared, tmp_path / "killed"), tmp_path / "killed", kills, number=number)
    assert killed.codes[-1] == 0, killed.output[-1][-3000:]
    assert killed.kills >= kills * 3 // 4, killed.steps  # a machine that is slow at looking may let it finish before
    assert not differences(final_state(tmp_path / "straight"), final_state(tmp_path / "killed"))
    assert final_state(tmp_path / "killed")["global_step"] == 200
