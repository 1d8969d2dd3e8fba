"""What is wrong with a study is said before anything starts: every cell is read as `fit` would read it."""

from collections.abc import Collection, Sequence
from pathlib import Path

from lit_t6.command_line.complaints import nearest
from lit_t6.data.manifest import read_manifest
from lit_t6.sweeps.cells import Cell, fit_options, matched, plain_cells
from lit_t6.sweeps.command import own_options
from lit_t6.sweeps.digest import names_data
from lit_t6.sweeps.same_data import ALL, Prepared
from lit_t6.sweeps.search import build_pruner, build_sampler, probes
from lit_t6.sweeps.study import Study
from lit_t6.training.planning.fit_reader import FitReader, FitSettings

FIGURES = (
    *("val/bits_per_byte", "val/loss", "val/perplexity", "train/loss"),
    *("perf/tokens_per_sec", "perf/step_ms", "perf/mfu", "memory/peak_gib", "cache/bytes_per_token"),
    *("optim/lr", "optim/grad_norm", "progress/tokens", "guards/skipped_steps", "guards/overflows", "guards/spikes"),
)
"""Tags that every training may log."""
_FACTORS = "factors/"
_NOWHERE = Path("logs/sweeps/study/cell/seed-0")


def check_study(study: Study, reader: FitReader | None = None) -> list[tuple[Cell, FitSettings]]:
    """Read every cell as `fit` does; of a search, settings at its borders.

    Args:
        study: to look at.
        reader: of options; made, which takes seconds, if not given.

    Returns:
        Each cell, head counts solved where `match` asks for it, with its settings.

    Raises:
        ValueError: the first thing that is wrong, with the cell that has it.
    """
    build_pruner(study)
    if study.search:
        build_sampler(study)
    reader = reader or FitReader()
    cells = probes(study) if study.search else tuple(plain_cells(study))
    if study.match != "none":  # what is wrong with an option shall not be said as one of head counts
        for cell in cells:
            read_cell(study, cell, reader, heads=False)
        cells = matched(study, cells)
    read = [(cell, read_cell(study, cell, reader)) for cell in cells]
    for cell, settings in read:
        _check_figures(study, cell, settings)
    return read


def read_cell(study: Study, cell: Cell, reader: FitReader, heads: bool = True) -> FitSettings:
    """What `fit` makes of a cell.

    Args:
        study: of the cell.
        cell: whose options are read.
        reader: of options.
        heads: solve a head count that is null.

    Raises:
        ValueError: what `fit` refuses; with the name of the cell, or of the study if all cells have it in common.
    """
    try:
        return reader.read([*fit_options(study, cell), *own_options(study, cell, 0, _NOWHERE)], heads)
    except ValueError as error:
        what = "search" if study.search else "cell"
        where = f"{study.files[-1]}: {what} {cell.name!r}"
        if _is_of_the_study(study, cell, reader, str(error)):
            where = f"{study.files[-1]}: in configs or options"
        raise ValueError(f"{where}: {error}") from error


def unknown_option(study: Study, names: Collection[str]) -> str:
    """What `fit` says of an option of a study or its cells.

    Args:
        study: that has them.
        names: of the options that are in question.

    Returns:
        The complaint, as `read_cell` raises it; empty if there is none of these.
    """
    reader = FitReader()
    for cell in plain_cells(study):
        try:
            read_cell(study, cell, reader, heads=False)
        except ValueError as error:
            said = str(error)
            if any(
                f"no option --{name}" in said or f"no setting {name.rpartition('.')[2]!r}" in said for name in names
            ):
                return said
    return ""


def _is_of_the_study(study: Study, cell: Cell, reader: FitReader, said: str) -> bool:
    """Whether the same is wrong without any cell."""
    alone = Cell("")
    try:
        reader.read([*fit_options(study, alone), *own_options(study, alone, 0, _NOWHERE)], heads=False)
    except ValueError as error:
        return str(error) == said
    return False


def check_data(study: Study, read: Sequence[tuple[Cell, FitSettings]]) -> dict[str, Prepared]:
    """Look at the data of all cells as `fit` does before it starts; each folder once.

    Args:
        study: of the cells.
        read: from `check_study`.

    Returns:
        The data of each cell, and, by `ALL`, of those that do not say themselves where theirs lies; of a search that
        alone, and nothing of one that chooses its data.

    Raises:
        ValueError: no prepared data, a damaged shard, or a vocabulary or length that does not go with a model.
    """
    seen: set[str] = set()
    found: dict[str, Prepared] = {}
    for cell, settings in read:
        own, path = names_data(cell), str(settings.data["path"])
        try:
            if settings.asked_of_data not in seen:
                settings.check_data()
        except ValueError as error:
            option = "the cell's data.path" if own else "--options.data.path"
            said = str(error).replace("--data.path", option)
            raise ValueError(f"{study.files[-1]}: cell {cell.name!r}: {said}") from error
        seen.add(settings.asked_of_data)
        data = Prepared(read_manifest(path).fingerprint, path)
        found |= ({} if own else {ALL: data}) | {cell.name: data}
    if study.search is not None:
        return {} if any(names_data(cell) for cell, _ in read) else {ALL: found[ALL]}
    return found


def _check_figures(study: Study, cell: Cell, settings: FitSettings) -> None:
    """Refuse a figure that nobody logs; where there are callbacks of the user's, these may."""
    if settings.trainer.get("callbacks"):
        return
    for key, tags in {"objective": (study.objective.metric,), "record": study.record}.items():
        for tag in tags:
            if tag not in FIGURES and not tag.startswith(_FACTORS):
                raise ValueError(
                    f"{study.files[-1]}: {key}: {tag!r} is not logged{nearest(tag, FIGURES)} There are "
                    f"{', '.join(FIGURES)}."
                )
    if study.objective.metric.startswith("val/") and settings.trainer.get("limit_val_batches") == 0:
        raise ValueError(
            f"{study.files[-1]}: objective: {study.objective.metric} is of validations, which "
            f"trainer.limit_val_batches=0 leaves out."
        )
