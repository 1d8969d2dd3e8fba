"""A report as a folder for TensorBoard: each trial with HParams and curves, and a run with tables and figures."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata  # type: ignore[import-untyped]
from tensorboard.compat.proto.tensor_pb2 import TensorProto  # type: ignore[import-untyped]
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2  # type: ignore[import-untyped]

from lit_t6.sweeps.report.findings import Findings, Trial
from lit_t6.sweeps.report.learning import Curve
from lit_t6.sweeps.report.varied import Column, columns_of
from lit_t6.training.event_records import VERSION, as_record
from lit_t6.whole_files import replace_bytes

SUMMARY = "summary"
"""Name of the run with tables and figures."""
RESULT = "result/"
"""Before the tags of last values of trials that completed: what HParams shows, no curve of one that diverged."""
_FILE = "events.out.tfevents.0000000000.report"
_MOST_POINTS = 1000
_STRING, _NUMBER = api_pb2.DATA_TYPE_STRING, api_pb2.DATA_TYPE_FLOAT64


def write_board(
    folder: Path,
    found: Findings,
    curves: Mapping[str, Mapping[str, Curve]],
    pages: Mapping[str, str],
    figures: Mapping[str, bytes],
) -> None:
    """Write the runs; those of an earlier report in this folder are replaced.

    Args:
        folder: of all runs.
        found: by the study.
        curves: of each trial, by its job and tag.
        pages: of the summary, Markdown by tag.
        figures: of the summary, PNGs by tag.

    Raises:
        OSError: it cannot be written.
    """
    for old in folder.rglob(_FILE):
        old.unlink()
    columns = columns_of(found)
    kinds = _kinds(columns)
    tags = [RESULT + tag for tag in (found.study.objective.metric, *found.recorded)]
    experiment = _experiment(kinds, tags, [column.name for column in columns])
    values = [experiment, *(_text(tag, text) for tag, text in pages.items())]
    values += [_image(tag, content) for tag, content in figures.items()]
    _write(folder / SUMMARY, [(0, values)], max(map(_ended, found.trials), default=0.0))
    for trial in found.trials:
        settings = hyperparameters(trial, columns)
        points = [(0, [experiment, _session(settings, kinds), _status(trial)])]
        for tag, curve in curves.get(trial.job.key, {}).items():
            points += [(step, [Summary.Value(tag=tag, simple_value=curve[step])]) for step in _thinned(curve)]
        last = int(trial.record.get("step") or 0)
        points.append((last, [Summary.Value(tag=tag, simple_value=each) for tag, each in _results(trial, tags)]))
        _write(folder / trial.job.key, points, _ended(trial))


def hyperparameters(trial: Trial, columns: Sequence[Column]) -> dict[str, str | float]:
    """The settings of a trial: the same names for all; 0 or "none" where a cell has no such thing.

    Args:
        trial: of the study.
        columns: what the study varies.
    """
    sizes = {
        name: float(trial.facts.get(name) or 0) for name in ("num_parameters", "cache_bytes_per_token", "num_heads")
    }
    varied: dict[str, str | float] = {}
    for column in columns:
        value = column.values.get(trial.job.cell)
        if column.is_numeric:
            varied[column.name] = float(value or 0)
        else:
            varied[column.name] = "none" if value is None else str(value)
    done = float(trial.outcome == "completed")
    own: dict[str, str | float] = {"cell": trial.job.cell, **varied}
    return {**own, **{k: v for k, v in sizes.items() if k not in own}, "seed": float(trial.job.seed), "completed": done}


def _kinds(columns: Sequence[Column]) -> dict[str, Any]:
    varied = {column.name: _NUMBER if column.is_numeric else _STRING for column in columns}
    numbers = ("num_parameters", "cache_bytes_per_token", "num_heads", "seed", "completed")
    return {"cell": _STRING, **varied, **{name: _NUMBER for name in numbers if name not in varied}}


def _experiment(kinds: Mapping[str, Any], tags: Sequence[str], varied: Sequence[str]) -> Summary.Value:
    """The columns; TensorBoard shows five settings until more are ticked, those that are said to differ."""
    first = ["cell", *varied, "cache_bytes_per_token", "seed", "num_parameters"][:5]
    infos = [api_pb2.HParamInfo(name=name, type=kind, differs=name in first) for name, kind in kinds.items()]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in tags]
    content = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    return _plugin(metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=content))


def _session(settings: Mapping[str, str | float], kinds: Mapping[str, Any]) -> Summary.Value:
    session = plugin_data_pb2.SessionStartInfo()
    for name in kinds:
        value = settings[name]
        if isinstance(value, str):
            session.hparams[name].string_value = value
        else:
            session.hparams[name].number_value = value
    return _plugin(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=session))


def _status(trial: Trial) -> Summary.Value:
    done = trial.outcome in ("completed", "pruned")
    failed = api_pb2.STATUS_FAILURE if trial.record else api_pb2.STATUS_RUNNING
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS if done else failed)
    return _plugin(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end))


def _plugin(tag: str, content: Any) -> Summary.Value:
    return Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(content))


def _results(trial: Trial, tags: Iterable[str]) -> list[tuple[str, float]]:
    if trial.outcome != "completed":
        return []
    values = [(tag, trial.metric(tag.removeprefix(RESULT))) for tag in tags]
    return [(tag, value) for tag, value in values if value is not None]


def _thinned(curve: Curve) -> list[int]:
    """At most so many of its steps, evenly, the last one always."""
    steps = list(curve)
    stride = -(-len(steps) // _MOST_POINTS)
    return steps[len(steps) - 1 :: -stride][::-1]


def _text(tag: str, text: str) -> Summary.Value:
    mark = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
    return Summary.Value(tag=f"{tag}/text_summary", metadata=mark, tensor=tensor)


def _image(tag: str, png: bytes) -> Summary.Value:
    width, height = struct.unpack(">II", png[16:24])  # of the PNG's first chunk
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
    return Summary.Value(tag=tag, image=image)


def _ended(trial: Trial) -> float:
    """When it ended, in seconds since 1970; 0 if that is not known."""
    return float((trial.record.get("times") or {}).get("ended") or 0)


def _write(folder: Path, points: Sequence[tuple[int, Sequence[Summary.Value]]], time: float) -> None:
    """A run's file, all at once."""
    folder.mkdir(parents=True, exist_ok=True)
    events = [Event(wall_time=time, file_version=VERSION)]
    events += [Event(wall_time=time, step=step, summary=Summary(value=values)) for step, values in points if values]
    replace_bytes(folder / _FILE, b"".join(map(as_record, events)))
