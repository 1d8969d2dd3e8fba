"""`make demo`: a small T6 learns Shakespeare's plays on a laptop's CPU, through the commands that a person types.

python -m experiments.shakespeare.run
"""

import sys
import time
from pathlib import Path
from typing import Any

from experiments.options import parser_for
from experiments.shakespeare.bigram import score_bigram
from experiments.shakespeare.plays import fetch_plays
from lit_t6.cli import run
from lit_t6.data import TokenDataModule

PLAYS = Path("data/shakespeare-plays")
DATA = Path("data/shakespeare")
CONFIG = "configs/quickstart.yaml"
PROMPT = "**ROMEO**  \n"


def command(*words: str) -> Any:
    """Show a command line, run it, return what it made."""
    print(
        f"\n$ python cli.py {' '.join(repr(word) if not word.isprintable() or ' ' in word else word for word in words)}"
    )
    sys.stdout.flush()
    return run(list(words))


def validation_figures(finished: Any) -> dict[str, float]:
    """Loss, perplexity and bits per byte that a `validate` measured."""
    return {name.removeprefix("val/"): float(value) for name, value in finished.trainer.callback_metrics.items()}


def prepare() -> None:
    """Fetch the plays and prepare them; does nothing the second time."""
    print(f"Fetching Shakespeare's plays into {PLAYS}.")
    fetch_plays(PLAYS)
    splits = ["--validation_fraction", "0.1", "--test_fraction", "0.05"]
    command("prepare", str(PLAYS), "--output", str(DATA), "--vocab_size", "1024", *splits)


def show() -> None:
    """Prepare, validate, fit, validate, compare, generate."""
    prepare()
    before = validation_figures(command("validate", "--config", CONFIG))
    print("\nTraining takes about three minutes on two cores.")
    started = time.perf_counter()
    fitted = command("fit", "--config", CONFIG)
    minutes = (time.perf_counter() - started) / 60
    checkpoint = f"{fitted.trainer.log_dir}/checkpoints/last.ckpt"
    after = validation_figures(command("validate", "--ckpt_path", checkpoint))

    data: TokenDataModule = fitted.datamodule
    bigram = score_bigram(
        data.windows("train", cover=True), data.evaluation_dataset("validation"), data.manifest.vocab_size
    )
    command("generate", "--ckpt_path", checkpoint, "--prompt", PROMPT, "--max_new_tokens", "250", "--seed", "1")

    held_out = data.manifest.splits["validation"]
    print(f"\n{held_out.documents} held-out plays, {held_out.bytes:,} bytes; training took {minutes:.1f} minutes.\n")
    print(f"{'':<22}{'loss':>10}{'perplexity':>14}{'bits per byte':>16}")
    for name, figures in (("before training", before), ("after training", after)):
        print(f"{name:<22}{figures['loss']:>10.4f}{figures['perplexity']:>14.2f}{figures['bits_per_byte']:>16.4f}")
    print(f"{'interpolated bigram':<22}{bigram.loss:>10.4f}{'':>14}{bigram.bits_per_byte:>16.4f}")
    print(f"T6 / bigram: {after['bits_per_byte'] / bigram.bits_per_byte:.3f}")
    print(f"\nThe curves: make tensorboard   (or: tensorboard --logdir {Path(fitted.trainer.log_dir).parent})")
    print(f"More text:  python cli.py generate --ckpt_path {checkpoint} --prompt '**JULIET**'")


def main(arguments: list[str] | None = None) -> None:
    """All of it, or the data only.

    Args:
        arguments: of the command line; those of the process if not given.
    """
    parser = parser_for("experiments.shakespeare.run", __doc__)
    what = f"data: fetch the plays, and prepare them in {DATA}; nothing more"
    parser.add_argument("what", nargs="?", choices=["data"], help=what)
    options = parser.parse_args(arguments)
    try:
        prepare() if options.what else show()
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
