"""Rank and head studies over all GPUs of a machine, over one, and with two GPUs a trial; workers are killed on the way.

python -m experiments.multi_gpu.studies --output experiments/multi_gpu/studies --data data/shakespeare
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.multi_gpu.attempts import Attempts
from experiments.multi_gpu.studies_result import Result, problems, table, timeline
from experiments.multi_gpu.utilisation import GpuUse
from experiments.options import parser_for, positive, seconds
from experiments.trained import CHECKOUT
from lit_t6.bench.facts import check_same, facts, write_json
from lit_t6.sweeps import typed_settings
from lit_t6.sweeps.begun import FOLDER
from lit_t6.sweeps.commands import EXIT_AGAIN
from lit_t6.sweeps.devices import visible_gpus
from lit_t6.sweeps.study import load_study

_LOOK_SECONDS = 0.5
_RESULT = "studies.json"
_PARTS = ("rank-all", "heads-all", "rank-pairs", "rank-one")


@dataclass(frozen=True)
class Part:
    """One `sweep run`.

    Args:
        name: of it, and of its folder of logs.
        study: "rank" or "heads".
        places: GPUs, or workers of a CPU, that it has.
        per_trial: GPUs that a trial takes.
        kills: kill workers; see `Attempts`.
    """

    name: str
    study: str
    places: int
    per_trial: int = 1
    kills: bool = False

    def told(self) -> str:
        """What it is, for people."""
        over = f"the {self.study} study over {self.places} GPUs or workers"
        return f"{over}, {self.per_trial} a trial{', of which some are killed' if self.kills else ''}"

    def typed(self) -> dict[str, Any]:
        """Settings of the study that are typed: a trial's global batch stays as it is on several devices."""
        if self.per_trial == 1:
            return {}
        return {"gpus_per_trial": self.per_trial, "seeds": [0]}


def parts(places: int) -> list[Part]:
    """What is run, in order.

    Args:
        places: GPUs of this machine, or workers of a CPU, at least two.
    """
    return [
        Part("rank-all", "rank", places),
        Part("heads-all", "heads", places, kills=True),
        Part("rank-pairs", "rank", places, per_trial=2),
        Part("rank-one", "rank", 1),
    ]


class Run:
    """A part under way.

    Args:
        part: to run.
        options: of this program.
        gpus: of this machine; none for work on the CPU.
    """

    def __init__(self, part: Part, options: argparse.Namespace, gpus: list[str]) -> None:
        self.part = part
        self.files = [f"configs/sweep/{part.study}.yaml", options.overlay.format(part.study)]
        self.logs = options.logs / part.name
        self.typed = {f"options.{name}": value for name, value in options.typed.items()} | part.typed()
        if part.per_trial > 1:
            self.typed["options.data.batch_size"] = options.pair_batch
        self.environment = {**os.environ}
        self.workers = [] if gpus else ["--workers", str(max(1, part.places // part.per_trial))]
        if gpus:
            self.environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[: part.places])
        self.seconds = options.seconds

    def words(self, command: str, *more: str) -> list[str]:
        """Of `python cli.py sweep COMMAND` for this study."""
        logs = f"--logs={self.logs}"
        return [sys.executable, "cli.py", "sweep", command, *self.files, logs, *self.typed_words(), *more]

    def typed_words(self) -> list[str]:
        """Settings of the study that are typed, as the command reads them."""
        return [
            f"--{name}={json.dumps(value) if isinstance(value, list) else value}" for name, value in self.typed.items()
        ]

    def run(self) -> dict[str, Any]:
        """To its end.

        Returns:
            `status` of the process, `seconds`, `attempts`, `use` of each GPU, steps from one save to the next
            (`saved_every`), and whether it went on with what an earlier call left, so that `seconds` are not those of
            the whole (`interrupted`).

        Raises:
            ValueError: a setting of the study is wrong; or it ended well, but is not the one that was watched.
        """
        study = load_study([CHECKOUT / name for name in self.files], typed_settings(self.typed_words()))
        folder = self.logs / FOLDER / study.name
        interrupted = bool(Attempts(study, folder).all())
        watched = Attempts(study, folder, self.part.places if self.part.kills else 0)
        with GpuUse(self.environment.get("CUDA_VISIBLE_DEVICES")) as use:
            process = subprocess.Popen(
                self.words("run", "--heartbeat=2", *self.workers),
                cwd=CHECKOUT,
                env=self.environment,
                start_new_session=True,
            )
            try:
                while process.poll() is None and time.time() - watched.began < self.seconds:
                    watched.look()
                    time.sleep(_LOOK_SECONDS)
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)  # trainings save
                    process.wait()
        seconds = time.time() - watched.began
        if process.returncode == 0:
            try:
                watched.open()
            except ValueError as error:
                raise ValueError(f"was trained, but could not be watched: {error}") from error
        found = [attempt.to_dict() for attempt in watched.all()]
        saved_every = int(study.options.get("resume.every_n_steps", 0))
        told = {"status": process.returncode, "seconds": seconds, "interrupted": interrupted}
        return told | {"attempts": found, "use": use.by_gpu(), "saved_every": saved_every}

    def report(self, folder: Path) -> None:
        """Tables, figures and TensorBoard's files of its study."""
        words = self.words("report", f"--output={folder / self.logs.name}")
        subprocess.run(words, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """The options, checked.

    Args:
        arguments: of the command line; those of the process if not given.
    """
    parser = parser_for(
        "experiments.multi_gpu.studies",
        __doc__,
        "Every trial takes options of `fit` too, such as --trainer.max_steps=100.\n"
        "experiments/multi_gpu/README.md says what is checked, how long it takes and what is written.",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        help=f"folder for {_RESULT}, .md, .png and a report of each part; parts that stand in it are not run again",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=_PARTS,
        default=[*_PARTS],
        metavar="PART",
        help="rank-all: the rank study over all GPUs, one trial on each; heads-all: the head study "
        "likewise, while workers are killed; rank-pairs: the rank study with two GPUs a trial; rank-one: on one GPU "
        "(default: all)",
    )
    parser.add_argument("--data", help="a prepared folder; that of the studies, which `make data` makes, if not given")
    parser.add_argument("--logs", type=Path, default=Path("logs/multi_gpu"), help="folder of all trials")
    parser.add_argument(
        "--overlay",
        default="configs/sweep/{}-10m.yaml",
        help="file over configs/sweep/rank.yaml and heads.yaml, {}, that makes them small",
    )
    parser.add_argument(
        "--pair_batch",
        type=positive,
        default=16,
        help="sequences that each of a trial's two GPUs takes at once: half of the overlay's data.batch_size, so that "
        "a step has as many as with one",
    )
    parser.add_argument("--workers", type=positive, default=2, help="trials at a time where there is no GPU")
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=1800,
        help="that a part may take; then its trials save, and it goes on next time",
    )
    options, rest = parser.parse_known_args(arguments)
    options.typed = {"data.path": str(Path(options.data).expanduser().resolve())} if options.data else {}
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        if not (word.startswith("--") and equals and "." in name):
            parser.error(
                f"{word}: expected an option of this program, or one of `fit`, such as --trainer.max_steps=100"
            )
        options.typed[name] = value
    options.output, options.logs = options.output.expanduser().resolve(), options.logs.expanduser().resolve()
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that have not been, and write studies.json, studies.md, studies.png and a report of each study.

    Args:
        arguments: of the command line; those of the process if not given.

    Returns:
        The exit status: 1 if a part did not end well, or gave other results than another one; 75 if there was no time
        for all, and the same command goes on.
    """
    options, gpus = read_options(arguments), visible_gpus()
    places = len(gpus) or options.workers
    if places < 2:
        print(f"error: {places} GPU: expected two or more; without a GPU, --workers 2.", file=sys.stderr)
        return 1
    chosen = [part for part in parts(places) if part.name in options.parts]
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / _RESULT
    result: Result = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    about = facts("cuda" if gpus else "cpu", program="-m experiments.multi_gpu.studies")
    try:
        check_same(path, result.get("facts", about)["same"], about["same"])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    result |= {"places": places, "facts": about}
    for part in chosen:
        if part.name in result["parts"]:
            print(f"{part.name}: is in {path} already.", file=sys.stderr, flush=True)
            continue
        print(f"{part.name}: {part.told()} …", file=sys.stderr, flush=True)
        run = Run(part, options, gpus)
        try:
            found = run.run()
        except ValueError as error:
            print(f"error: {part.name}: {error}", file=sys.stderr)
            return 1
        if found["status"] == EXIT_AGAIN:
            print(f"{part.name}: stopped after {found['seconds']:.0f} s, and saved. The same command goes on.")
            return EXIT_AGAIN
        if found["status"] != 0:
            print(f"error: {part.name}: ended with status {found['status']}; see above.", file=sys.stderr)
            return 1
        said = {"places": part.places, "per_trial": part.per_trial, "kills": part.kills, "facts": about}
        result["parts"][part.name] = found | said
        write_json(path, result)
        run.report(options.output)
    (options.output / "studies.md").write_text(table(result))
    timeline(result, options.output / "studies.png")
    print(table(result))
    wrong = problems(result)
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
