"""What libraries warn of while a command trains."""

import sys
import warnings

import pytest

from lit_t6.cli import main, run
from lit_t6.training.library_warnings import in_our_words


@pytest.fixture
def shown(monkeypatch, capsys):
    """Warnings go to stderr as they do outside of pytest, which keeps them; gives what was written there."""

    def show(message, category, filename, lineno, file=None, line=None):
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))

    monkeypatch.setattr(warnings, "showwarning", show)
    warnings.simplefilter("default")
    return lambda: [line for line in capsys.readouterr().err.splitlines() if "arning" in line or "packages" in line]


def test_what_matters_is_said_in_our_own_words(options, shown):
    first = run(["fit", *options]).trainer.log_dir
    shown()
    words = ["--ckpt_path", f"{first}/checkpoints/last.ckpt", "--trainer.max_steps=4", "--trainer.precision=16-mixed"]
    assert main(["fit", *options, *words]) == 0
    again = first.replace("version_0", "version_1")
    assert shown() == [
        "warning: trainer.precision=16-mixed: a CPU does not train in float16, so this is bf16-mixed.",
        f"warning: checkpoints go to {again}/checkpoints from here on: those in {first}/checkpoints are left alone, "
        f"and which are the best is found out anew.",
    ]


def test_a_training_without_an_end_is_told(options, shown):
    assert (
        main(
            [
                "fit",
                *options,
                "--trainer.max_steps=-1",
                "--trainer.callbacks+=tests.training.endings.FailsBeforeTheFirstStep",
            ]
        )
        == 1
    )
    (line,) = shown()
    assert line.startswith("warning: neither trainer.max_steps nor trainer.max_epochs is set: training ends after 1000")


def test_what_means_nothing_here_is_hidden(options, shown, tmp_path):
    """Short epochs, few workers, and a folder that holds checkpoints."""
    words = [f"--checkpoint.dirpath={tmp_path / 'shared'}", "--trainer.limit_train_batches=2"]
    words += ["--trainer.log_every_n_steps=50", "--data.num_workers=0"]
    for seed in range(2):
        assert main(["fit", *options, *words, f"--data.seed={seed}"]) == 0
    assert shown() == []


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            "GPU available but not used. You can set it by doing `Trainer(accelerator='gpu')`.",
            "there is a GPU, and it is not used; --trainer.accelerator auto takes it.",
        ),
        (
            "This DataLoader will create 9 worker processes in total. Our suggested max number of worker in current "
            "system is 2, which is smaller than what this DataLoader is going to create.",
            "data.num_workers=9, and 2 CPU cores may be used here: fewer workers may be faster.",
        ),
        (
            "The loaded checkpoint was produced with Lightning v9.1, which is newer than your current Lightning "
            "version: v2.6.6",
            "the checkpoint was written with Lightning 9.1, and this is 2.6.6, which is older: if it is refused, "
            "update.",
        ),
        ("Something\n  else happened.", "Something else happened."),
    ],
)
def test_each_is_one_line_and_said_once(shown, theirs, ours):
    before = warnings.formatwarning
    with in_our_words(formats=True):
        warnings.warn(theirs, stacklevel=1)
        warnings.warn(theirs, stacklevel=2)  # from another place
    assert shown() == [f"warning: {ours}"]
    assert warnings.formatwarning is before


def test_a_program_keeps_the_looks_of_its_warnings(options, shown):
    run(["fit", *options, "--trainer.precision=16-mixed", "--trainer.max_steps=1"])
    assert any("accelerator_connector.py" in line for line in shown())
