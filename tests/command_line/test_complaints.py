from lit_t6.command_line.complaints import explain, nearest

KEYS = ["model.d_model", "model.attention", "trainer.max_steps", "model.optimizer.lr"]


def test_nearest():
    assert nearest("d_modle", ["d_model", "lr"]) == "; did you mean d_model?"
    assert nearest("zzz", ["d_model", "lr"]) == "."
    assert nearest("--lr", KEYS) == "; did you mean --model.optimizer.lr?"


def test_a_complaint_that_nobody_knows_is_passed_on_in_one_line():
    assert explain("Something:\n  - odd\n\n", KEYS) == "Something: - odd"
