"""What `python cli.py sweep run`, `status` and `pack` do."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lit_t6.sweeps.advice import advice
from lit_t6.sweeps.apart import apart
from lit_t6.sweeps.begun import asked_to_run, load_asked, load_begun, open_begun
from lit_t6.sweeps.cells import Cell, plain_cells
from lit_t6.sweeps.coordinator import Coordinator
from lit_t6.sweeps.devices import share_out, visible_gpus
from lit_t6.sweeps.files import locked
from lit_t6.sweeps.jobs import Standing, jobs_of
from lit_t6.sweeps.ledger import Ledger
from lit_t6.sweeps.pack import check_folder, give_up_running, pack
from lit_t6.sweeps.presence import WORKERS, Presence
from lit_t6.sweeps.records import write_record
from lit_t6.sweeps.room import bytes_to_begin, whole_or_nothing
from lit_t6.sweeps.same_data import Prepared, check_same_data, record, recorded
from lit_t6.sweeps.same_study import agree, kept_study, told_of, with_seeds_of
from lit_t6.sweeps.saved_study import STUDY_NAME, save_study
from lit_t6.sweeps.screen import Screen
from lit_t6.sweeps.status import of_the_living, overview, summary, table
from lit_t6.sweeps.storage import GRACE, HEARTBEAT_SECONDS, JOURNAL, open_storage
from lit_t6.sweeps.study import Study, load_study
from lit_t6.sweeps.worker import Plan

EXIT_AGAIN = 75
"""The same command goes on."""


def sweep_run(
    study: Sequence[str],
    overrides: Mapping[str, Any] | None = None,
    storage: str | None = None,
    workers: int | None = None,
    workers_per_gpu: int = 1,
    logs: str = "logs",
    dry_run: bool = False,
    rate: float | None = None,
    format: Literal["table", "json"] = "table",
    from_archive: str | None = None,
    retry_failed: bool = False,
    heartbeat: float = HEARTBEAT_SECONDS,
) -> Any:
    """Train every cell of a study with every seed, or as many trials as a search has, one after the other on each GPU.

    Every trial is a process of its own, `cli.py fit`, in LOGS/sweeps/NAME/CELL/seed-N. What is interrupted goes on when
    the same command is typed again, and nothing that is finished is trained twice. The same command on another machine,
    with the same --storage, takes a part of the work. Settings of the study can be typed too, such as --num_trials 50,
    --seeds 0,1 or --options.trainer.max_steps 100. With --seeds these alone are trained now; those that the study was
    begun with are kept beside them, and `sweep run` of its folder trains all.

    A study's `configs:` are relative to the YAML file that says them, and data.path to the folder you are in. Where the
    same data lies elsewhere, as on another machine, a study that was begun goes on with --options.data.path FOLDER.

    Args:
        study: YAML file of the study, or several that stack, or the folder of one that was begun.
        overrides: settings of the study that were typed.
        storage: where trials are kept: postgresql://USER:PASSWORD@HOST/DATABASE for several machines, grpc://HOST:PORT
            of a proxy before one, or a journal file; by default journal.log in the study's folder.
        workers: trials at a time on this machine; by default one a GPU, or one on a CPU.
        workers_per_gpu: trials that share a GPU.
        logs: folder of all logs; the study's is LOGS/sweeps/NAME.
        dry_run: only show what would be trained: sizes, caches, estimated time and memory.
        rate: with dry_run, FLOP/s that training reaches, to estimate times from.
        format: with dry_run, a table for people or JSON for programs.
        from_archive: go on with the study in this file, which `sweep pack` made.
        retry_failed: try trials again that failed, as often as the study says and with their whole time limit; what a
            run left that had reached its end is set aside, and it is trained from the start.
        heartbeat: seconds between two signs of life of a worker; one that misses four is replaced. The same for all
            workers of a study.

    Raises:
        ValueError: what is wrong with the study or the storage; or, at the end, trials that failed.
        SystemExit: with 75 where a signal ended it: the same command goes on.
    """
    if heartbeat <= 0:
        raise ValueError(f"--heartbeat must be above 0 seconds, got {heartbeat:g}.")
    of_a_look = {"--rate": rate is not None, "--format json": format == "json"}
    if not dry_run and (useless := [option for option, is_given in of_a_look.items() if is_given]):
        raise ValueError(
            f"{' and '.join(useless)}: only of use with --dry_run true, which shows what would be trained; add that, "
            f"or leave {'them' if len(useless) > 1 else 'it'} out. `sweep status --format json` tells programs how a "
            f"study stands."
        )
    if dry_run:
        with tempfile.TemporaryDirectory() as scratch:  # a look unpacks nothing for good
            asked, folder = load_asked(study, overrides, scratch if from_archive else logs, from_archive)
            return _preview(asked, workers, folder, rate, format)
    with Screen() as screen:
        with asked_to_run(study, overrides, logs, from_archive) as (asked, folder):
            if asked.question:
                screen.say(f"{asked.name}: {asked.question}")
            if (kept := kept_study(asked, folder, from_archive)) is not None:
                for line in told_of(kept, asked, folder):
                    screen.say(line)
            with _beginning(asked, folder) as presence:
                cells, on_cpu, data = _checked(asked)
                gpus = [] if on_cpu else visible_gpus()
                environments = share_out(gpus, asked.gpus_per_trial, workers_per_gpu, workers)
                places = {name: found.path for name, found in data.items()}
                plan = Plan(asked, cells, storage, folder.resolve(), heartbeat, places=places)
                ledger = _begin(plan, screen, presence, from_archive is not None, retry_failed, data)
                plan = _of_kept_files(plan)
        try:
            coordinator = Coordinator(plan, ledger, environments, screen)
            stands = coordinator.run()
        finally:
            presence.close()
    for line in [*summary(stands), "", *table(stands)]:
        print(line)
    if coordinator.interrupted and not stands.is_over:
        print("Stopped; the same command goes on.", flush=True)
        raise SystemExit(EXIT_AGAIN)
    if stands.failed:
        names = ", ".join(job.key for job, _ in stands.failed)
        raise ValueError(
            f"{len(stands.failed)} of {len(stands.rows)} trials failed: {names}. The table says why, and output.log in "
            f"their folders in {folder} more. {advice(stands)}"
        )
    return stands


def _checked(study: Study) -> tuple[tuple[Cell, ...], bool, dict[str, Prepared]]:
    """The cells of a study, looked at as `fit` does, whether they are trained on a CPU, and their data.

    In a process of its own, since that loads PyTorch and Lightning, which the coordinator has no use for.
    """
    return apart(check, study)


def check(study: Study) -> tuple[tuple[Cell, ...], bool, dict[str, Prepared]]:
    """Look at a study as `fit` would.

    Args:
        study: to look at.

    Returns:
        Its cells, with head counts solved, none of a search; whether all are trained on CPUs; and their data.

    Raises:
        ValueError: what is wrong with it.
    """
    from lit_t6.sweeps.checking import check_data, check_study

    read = check_study(study)
    data = check_data(study, read)
    cells = () if study.search is not None else tuple(cell for cell, _ in read)
    return cells, all(settings.on_cpu for _, settings in read), data


def _preview(study: Study, workers: int | None, folder: Path, rate: float | None, format: Any) -> Any:
    from lit_t6.sweeps.preview import preview
    from lit_t6.sweeps.preview_table import print_preview

    seen = preview(study, workers or 1, folder, rate)
    print_preview(seen, format)
    return seen


@contextmanager
def _beginning(study: Study, folder: Path) -> Iterator[Presence]:
    """This process at a study's folder, where others see that it is about to begin; it leaves nothing if it fails."""
    with whole_or_nothing(folder, bytes_to_begin(study)):
        presence = Presence(folder / WORKERS)
        try:
            yield presence
        except BaseException:
            presence.close()
            raise


def _begin(
    plan: Plan,
    screen: Screen,
    presence: Presence,
    unpacked: bool,
    retry_failed: bool,
    data: Mapping[str, Prepared] | None = None,
) -> Ledger:
    """Have a trial for each job in the storage, and a record in each folder of one that has ended."""
    storage = open_storage(plan.storage, plan.folder, plan.heartbeat, screen.say)
    with locked(plan.folder / WORKERS / "begin"):  # another coordinator on this machine makes the same trials
        grace = GRACE * plan.heartbeat
        ledger = Ledger(plan.study, jobs_of(plan.study), storage, plan.folder, grace, presence.identity)
        kept = kept_study(plan.study, plan.folder)
        if kept is not None and kept.name == plan.study.name:  # of a journal that is lost, the folder knows the data
            check_same_data(recorded(plan.folder), data or {}, kept.name)
        record(agree(ledger, data), plan.folder)
        if unpacked and (plan.storage is None or Path(plan.storage) == plan.folder / JOURNAL):
            give_up_running(ledger)
        save_study(with_seeds_of(kept, plan.study), plan.folder)
        ledger.reap()
        ledger.make_due(lambda stands: retry_failed or stands.status == "lost")
        _write_records(ledger)
    return ledger


def _of_kept_files(plan: Plan) -> Plan:
    """The same plan with the files kept in the study's folder: trials agree, whatever becomes of the others."""
    kept = replace(load_study([plan.folder / STUDY_NAME]), seeds=plan.study.seeds)
    options = {cell.name: cell.options for cell in plan.cells}  # with head counts solved
    cells = tuple(replace(cell, options=options[cell.name]) for cell in plain_cells(kept))
    return replace(plan, study=kept, cells=cells)


def _write_records(ledger: Ledger) -> None:
    """Write the records that a process had no time to write."""
    for key, stands in ledger.standings().items():
        folder = ledger.folder / key
        if stands.is_over and stands.trial is not None and folder.is_dir() and not _recorded(folder, stands):
            write_record(folder, stands.trial, ledger.study)


def _recorded(folder: Path, stands: Standing) -> bool:
    from lit_t6.sweeps.records import read_record

    record = read_record(folder)
    return record is not None and record.get("outcome") == stands.status


def sweep_status(
    study: Sequence[str],
    overrides: Mapping[str, Any] | None = None,
    storage: str | None = None,
    logs: str = "logs",
    format: Literal["table", "json"] = "table",
    heartbeat: float = HEARTBEAT_SECONDS,
) -> Any:
    """Show how a study stands: what is done, running, pruned, failed, the best so far, and the time left.

    It asks the storage, from any machine, and disturbs nobody. Seeds that the study was begun with are shown too where
    its file does not name them; with --seeds, those alone.

    Args:
        study: as of `sweep run`: its files, or its folder.
        overrides: settings of the study that were typed.
        storage: as of `sweep run`.
        logs: folder of all logs.
        format: a table for people, or JSON for programs.
        heartbeat: as of `sweep run`.

    Raises:
        ValueError: the study has not been begun, or with other settings, or the storage cannot be reached.
    """
    asked, folder = load_begun(study, overrides, logs)
    ledger = open_begun(asked, folder, storage, heartbeat)
    stands = overview(ledger.study, ledger.jobs, of_the_living(ledger.standings()))
    if format == "json":
        print(json.dumps(stands.to_dict(), indent=2, ensure_ascii=False))
    else:
        print("\n".join([*summary(stands), "", *table(stands)]))
    return stands


def sweep_pack(
    study: Sequence[str],
    overrides: Mapping[str, Any] | None = None,
    output: str | None = None,
    overwrite: bool = False,
    storage: str | None = None,
    logs: str = "logs",
) -> Path:
    """Put a study into one small file: its settings, the journal, and metrics and curves of every trial that ended.

    Checkpoints stay where they are. `sweep run --from FILE` goes on with it on another machine; `sweep status` works
    there too. Seeds that the study was begun with come along where its file does not name them; with --seeds, those
    alone are packed.

    Args:
        study: as of `sweep run`: its files, or its folder.
        overrides: settings of the study that were typed.
        output: the file; by default NAME.tar.gz.
        overwrite: replace the file if it is there.
        storage: as of `sweep run`.
        logs: folder of all logs.

    Raises:
        ValueError: the study has not been begun, or with other settings, or the file is there already.
    """
    from lit_t6.training.places import check_output

    asked, folder = load_begun(study, overrides, logs)
    target = Path(output or f"{asked.name}.tar.gz")
    check_output(target, "--output", f"{asked.name}.tar.gz", overwrite)
    check_folder(target)
    ledger = open_begun(asked, folder, storage, HEARTBEAT_SECONDS)
    ended, size = pack(ledger, folder, target)
    print(f"{target}: {ended} of {len(ledger.jobs)} trials, {size:,} bytes")
    print(f"next: python cli.py sweep run --from {target}")
    return target
