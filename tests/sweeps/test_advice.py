import pytest

from lit_t6.sweeps.advice import advice
from lit_t6.sweeps.status import overview

from .ledgers import ONE, make_ledger, make_study

AGAIN = "The same command with --retry_failed true"


@pytest.fixture
def after(tmp_path):
    """What is said after a study whose trials ended so."""

    def say(*outcomes, **said):
        cells = {f"c{number}": {"x.y": number} for number in range(len(outcomes))}
        study = make_study(tmp_path, **{**ONE, "cells": cells, "time_limit": "90m", "retries": 0})
        ledger = make_ledger(study, tmp_path)
        ledger.make_due()
        for outcome in outcomes:
            ledger.finish(ledger.claim(), outcome, None, {"reason": "why", **said})
        return advice(overview(study, ledger.jobs, ledger.standings()))

    return say


def test_what_may_have_been_chance_is_tried_again(after):
    assert after("failed", "lost") == f"{AGAIN} tries them again."


def test_a_time_limit_can_be_raised(after):
    assert after("timed_out") == (
        f"{AGAIN} goes on with those that timed out, which have their whole time again; --time_limit (now 1h30m) can "
        f"be raised there."
    )


def test_what_would_end_the_same_way_needs_other_settings(after):
    said = after("diverged")
    assert "--retry_failed" not in said
    assert "a smaller model.optimizer.lr or more warmup_steps, in a study of another --name." in said


def test_where_no_training_logs_the_objective_another_one_is_needed(after):
    said = after("failed", final=True)
    assert said.startswith("Those without val/bits_per_byte would end so again")
    assert "--retry_failed" not in said


def test_of_several_reasons_each_is_told_what_helps(after):
    said = after("failed", "diverged", "out_of_memory")
    assert said.startswith(f"{AGAIN} tries those that failed or were lost again. {AGAIN} helps those that were out of")
    assert "fewer --workers_per_gpu" in said
    assert said.endswith("in a study of another --name.")
