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
from experiments.multi_gpu.cases import CHECKOUT
from experiments.multi_gpu.studies_result import Result, problems, table, timeline
from experiments.multi_gpu.utilisation import GpuUse
from lit_t6.bench.facts import facts, write_json
from lit_t6.sweeps.begun import FOLDER
from lit_t6.sweeps.commands import EXIT_AGAIN
from lit_t6.sweeps.devices import visible_gpus
from lit_t6.sweeps.study import load_study

_LOOK_SECONDS = 0.5
_RESULT = "studies.json"


@dataclass(frozen=True)
class Part:
    """One `sweep run`.

    Args:
        name: of it, and of its folder of logs.
        study: "rank" or "heads".
        places: GPUs, or workers of a CPU, that it has.
        per_trial: GPUs that a trial takes.
        kills: kill a worker twice; see `Attempts`.
    """

    name: str
    study: str
    places: int
    per_trial: int = 1
    kills: bool = False

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
        Part("rank, all", "rank", places),
        Part("heads, all", "heads", places, kills=True),
        Part("rank, pairs", "rank", places, per_trial=2),
        Part("rank, one", "rank", 1),
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
        self.logs = options.logs.expanduser() / part.name.replace(", ", "-")
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
        typed = [
            f"--{name}={json.dumps(value) if isinstance(value, list) else value}" for name, value in self.typed.items()
        ]
        return [sys.executable, "cli.py", "sweep", command, *self.files, f"--logs={self.logs}", *typed, *more]

    def run(self) -> dict[str, Any]:
        """To its end.

        Returns:
            `status` of the process, `seconds`, `attempts`, `use` of each GPU, and whether it went on with what an
            earlier call left, so that `seconds` are not those of the whole (`interrupted`).
        """
        study = load_study([CHECKOUT / name for name in self.files], self.typed)
        folder = self.logs / FOLDER / study.name
        interrupted = bool(Attempts(study, folder).all())
        watched = Attempts(study, folder, self.part.kills)
        with GpuUse() as use:
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", required=True, type=Path, help=f"folder for {_RESULT}, .md, .png and the reports; parts go on there"
    )
    parser.add_argument("--logs", type=Path, default=Path("logs/multi_gpu"), help="folder of all trials")
    parser.add_argument("--data", help="a prepared folder; that of the studies if not given")
    parser.add_argument("--workers", type=int, default=2, help="on a CPU, in place of GPUs")
    parser.add_argument("--overlay", default="configs/sweep/{}-10m.yaml", help="over the studies rank and heads, as {}")
    parser.add_argument("--pair_batch", type=int, default=16, help="sequences a GPU where a trial has two")
    parser.add_argument("--parts", nargs="+", help="of: rank, all; heads, all; rank, pairs; rank, one (default: all)")
    parser.add_argument("--seconds", type=float, default=1800, help="that a part may take; it goes on next time")
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
        The exit status: 1 if a part did not end well, or gave other results than another one.
    """
    options, gpus = read_options(arguments), visible_gpus()
    places = len(gpus) or options.workers
    if places < 2:
        print(f"error: {places} GPU: expected two or more; without a GPU, --workers 2.", file=sys.stderr)
        return 1
    chosen = parts(places)
    if options.parts:
        unknown = set(options.parts) - {part.name for part in chosen}
        if unknown:
            print(f"error: --parts: there is no {', '.join(sorted(unknown))}.", file=sys.stderr)
            return 1
        chosen = [part for part in chosen if part.name in options.parts]
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / _RESULT
    result: Result = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    result["places"] = places
    result["facts"] = facts("cuda" if gpus else "cpu", program="-m experiments.multi_gpu.studies")
    for part in chosen:
        if part.name in result["parts"]:
            print(f"{part.name}: is in {path} already.", file=sys.stderr, flush=True)
            continue
        print(f"{part.name} …", file=sys.stderr, flush=True)
        run = Run(part, options, gpus)
        found = run.run()
        if found["status"] != 0:
            again = "the same command goes on" if found["status"] == EXIT_AGAIN else "see above"
            print(f"error: {part.name}: ended with status {found['status']}; {again}.", file=sys.stderr)
            return 1
        result["parts"][part.name] = found | {"places": part.places, "per_trial": part.per_trial}
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
