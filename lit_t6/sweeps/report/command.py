"""What `python cli.py sweep report` does."""

import csv
import io
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lit_t6.sweeps.addresses import published
from lit_t6.sweeps.begun import load_begun
from lit_t6.sweeps.jobs import jobs_of
from lit_t6.sweeps.report.board import write_board
from lit_t6.sweeps.report.described import Description, describe
from lit_t6.sweeps.report.document import document, table_page
from lit_t6.sweeps.report.figures import cells_figure, importance_figure, varied_figure
from lit_t6.sweeps.report.findings import Findings, findings
from lit_t6.sweeps.report.gathering import gather
from lit_t6.sweeps.report.importance import importances
from lit_t6.sweeps.report.learning import Curve, curves_figure, read_curves
from lit_t6.sweeps.report.lettering import escape, lettering
from lit_t6.sweeps.report.method import anew, how, in_common
from lit_t6.sweeps.report.pareto import pareto_figure
from lit_t6.sweeps.report.tables import cells_csv, trials_csv
from lit_t6.sweeps.same_study import as_begun
from lit_t6.training.messages import counted
from lit_t6.whole_files import replace_bytes, replace_text

REPORT, CELLS, TRIALS, BOARD = "report.md", "cells.csv", "trials.csv", "tensorboard"
_ALSO = ("train/loss",)
_MOST_LETTERS = 8
_ABOUT = {
    "cells.png": "every cell with its interval",
    "varied.png": "the objective against what is varied",
    "pareto.png": "the objective against the size of the cache",
    "curves.png": "learning curves",
    "importance.png": "importance of the parameters",
}


def sweep_report(
    study: Sequence[str],
    overrides: Mapping[str, Any] | None = None,
    output: str | None = None,
    from_archive: str | None = None,
    storage: str | None = None,
    logs: str = "logs",
) -> Findings:
    """Answer a study's question: tables, figures, and a folder for TensorBoard.

    It writes report.md, cells.csv, trials.csv, figures and tensorboard/, and replaces those of an earlier report. A
    study may be reported on while it runs. Failed, diverged and pruned trials stay in the tables as such. Seeds that
    the study was begun with are reported on too where its file does not name them; with --seeds, those alone. Seeds
    and cells that were trained and are not reported on are named. With --baseline CELL all others are compared with
    that cell, also where they were matched to another one.

    Args:
        study: as of `sweep run`: its files, or its folder.
        overrides: settings of the study that were typed.
        output: folder of the report; by default reports/NAME.
        from_archive: report on the study in this file, which `sweep pack` made; nothing is unpacked for good.
        storage: as of `sweep run`. Without it, and without a journal in the study's folder, the records in the
            trials' folders are read.
        logs: folder of all logs.

    Raises:
        ValueError: the study has not been begun, or with other settings, or not with a seed; the archive is none; or
            nothing has completed, and the report that is there has more.
    """
    command = _typed(study, {"from": from_archive, "output": output, "storage": storage}, overrides, logs)
    with tempfile.TemporaryDirectory() as scratch:
        asked, folder = load_begun(study, overrides, scratch if from_archive else logs, from_archive, compares=True)
        begun = as_begun(asked, folder)
        again = anew(asked, folder, overrides, from_archive, logs)
        if from_archive:
            asked = replace(asked, files=(Path(from_archive),))
        gathered = gather(begun, folder, storage, "seeds" in (overrides or {}))
        described = {job.key: describe(folder / job.key) for job in jobs_of(asked)}
        records = {key: _with_sizes(record, described[key]) for key, record in gathered.records.items()}
        matched_to = begun.baseline or "" if begun.baseline != asked.baseline else ""
        found = findings(asked, records, gathered.spent)
        found = replace(found, left_out=gathered.left_out, matched_to=matched_to)
        method = how(found, in_common(list(described.values())), again, command)
        tags = (asked.objective.metric, *_ALSO, *found.recorded)
        curves = {trial.job.key: read_curves(folder / trial.job.key, tags) for trial in found.trials}
        target = Path(output or f"reports/{asked.name}").expanduser()
        for line in _publish(found, curves, target, method):
            print(line)
    return found


def _typed(
    study: Sequence[str], options: Mapping[str, str | None], overrides: Mapping[str, Any] | None, logs: str
) -> str:
    """The command that a person typed, without passwords."""
    given = {**options, **(overrides or {}), **({"logs": logs} if logs != "logs" else {})}
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    return f"python cli.py sweep report {shlex.join(map(published, [*study, *words]))}"


def _with_sizes(record: Mapping[str, Any], described: Description) -> Mapping[str, Any]:
    """A record with the sizes of a model that was built, and trained in vain before it could tell of them."""
    return {**record, "facts": {**described.sizes, **(record.get("facts") or {})}}


def _publish(
    found: Findings, curves: Mapping[str, Mapping[str, Curve]], target: Path, method: Sequence[str]
) -> Sequence[str]:
    """Write all of it; what is to be said of it."""
    _check_fuller(found, target)
    target.mkdir(parents=True, exist_ok=True)
    shares = importances(found)
    cells = cells_csv(found)
    with lettering(document(found, shares, {}) + cells) as undrawn:
        drawn = _figures(found, curves, shares)
        pictures = {name: _png(figure) for name, figure in drawn.items() if figure is not None}
    for name in _ABOUT:
        if name in pictures:
            replace_bytes(target / name, pictures[name])
        else:
            (target / name).unlink(missing_ok=True)
    replace_text(target / CELLS, cells)
    replace_text(target / TRIALS, trials_csv(found))
    replace_text(target / REPORT, document(found, shares, {name: _ABOUT[name] for name in pictures}, method))
    pages = {"report/table": table_page(found, shares)}
    board = target / BOARD
    write_board(board, found, curves, pages, {f"report/{Path(name).stem}": png for name, png in pictures.items()})
    names = ", ".join([REPORT, CELLS, TRIALS, *pictures])
    return [
        table_page(found, shares),
        "",
        f"written: {target}: {names}",
        *_without(undrawn),
        f"next: tensorboard --logdir {shlex.quote(str(board))}",
    ]


def _check_fuller(found: Findings, target: Path) -> None:
    """Refuse to replace a report that has results by one that has none."""
    if found.outcomes["completed"]:
        return
    with suppress(OSError, csv.Error, UnicodeDecodeError):
        text = (target / TRIALS).read_text(encoding="utf-8")
        before = sum(row.get("outcome") == "completed" for row in csv.DictReader(io.StringIO(text)))
        if before:
            raise ValueError(
                f"{target}: the report that is there is not replaced: it has {counted(before, 'trial')} that "
                f"completed, and of what is asked for now none has. Name another folder with --output."
            )


def _without(undrawn: str) -> list[str]:
    """What to say of letters that no font has."""
    if not undrawn:
        return []
    some = ", ".join(f"{letter} ({escape(letter)})" for letter in undrawn[:_MOST_LETTERS])
    more = f" and {len(undrawn) - _MOST_LETTERS} more" if len(undrawn) > _MOST_LETTERS else ""
    return [f"figures: no installed font has {some}{more}, so escapes stand there. Install one, such as Noto Sans CJK."]


def _figures(found: Findings, curves: Mapping[str, Mapping[str, Curve]], shares: Any) -> dict[str, Figure | None]:
    title = f"{found.study.name}: what mattered"
    bars = (
        importance_figure([each.name.rpartition(".")[2] for each in shares], [each.share for each in shares], title)
        if shares
        else None
    )
    return {
        "cells.png": cells_figure(found),
        "varied.png": varied_figure(found),
        "pareto.png": pareto_figure(found),
        "curves.png": curves_figure(found, curves),
        "importance.png": bars,
    }


def _png(figure: Figure) -> bytes:
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=110)
    return written.getvalue()
