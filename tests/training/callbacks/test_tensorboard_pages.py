import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from ..runs import MHA, SMALL, fit


@pytest.fixture(scope="module")
def runs(tmp_path_factory, prepared):
    """Events of a run with TPA and of one with MHA."""
    folder = tmp_path_factory.mktemp("pages")
    for name, config in (("tpa", SMALL), ("mha", MHA)):
        fit(folder / name, prepared, config)
    return [EventAccumulator(str(folder / name / "run")).Reload() for name in ("tpa", "mha")]


def plugin(events, tag):
    content = events.SummaryMetadata(tag).plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def test_hparams_have_the_same_columns_in_every_run(runs):
    columns = [plugin(run, "_hparams_/experiment").experiment.hparam_infos for run in runs]
    assert [(c.name, c.type) for c in columns[0]] == [(c.name, c.type) for c in columns[1]]
    settings = [plugin(run, "_hparams_/session_start_info").session_start_info.hparams for run in runs]
    for values, mechanism in zip(settings, ("TPA (6, 2, 2)", "MHA"), strict=True):
        assert set(values) == {column.name for column in columns[0]}
        assert values["mechanism"].string_value == mechanism
        numeric = set(values) - {"mechanism", "init"}
        assert all(values[name].HasField("number_value") for name in numeric)
    assert (settings[0]["rank_q"].number_value, settings[1]["rank_q"].number_value) == (6, 0)
    assert settings[1]["num_kv_heads"].number_value == 4
    assert settings[0]["tokens_per_step"].number_value == 4 * 32


def test_results_of_hparams_are_tags_that_are_logged(runs):
    for run in runs:
        tags = [m.name.tag for m in plugin(run, "_hparams_/experiment").experiment.metric_infos]
        assert "val/loss" in tags
        assert set(tags) <= set(run.Tags()["scalars"])


def test_losses_over_tokens(runs):
    for run in runs:
        train = run.Scalars("train/loss_over_tokens")
        assert [e.step for e in train] == [128 * n for n in range(1, 8)]
        assert [e.value for e in train] == [e.value for e in run.Scalars("train/loss")]
        validation = run.Scalars("val/loss_over_tokens")
        assert [e.step for e in validation] == [128 * 5, 128 * 7]
        assert [e.value for e in validation] == [e.value for e in run.Scalars("val/loss")]


def test_the_layout_names_tags_that_are_logged(runs):
    content = runs[0].Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = layout_pb2.Layout.FromString(content)
    assert [category.title for category in layout.category] == ["Loss", "Speed and memory"]
    tags = [tag for category in layout.category for chart in category.chart for tag in chart.multiline.tag]
    assert all(tag.startswith("^") and tag.endswith("$") for tag in tags)  # they are patterns
    assert {tag.strip("^$") for tag in tags} <= set(runs[0].Tags()["scalars"])


def test_configuration_and_model_are_there_as_text(runs):
    text = {
        tag: runs[1].Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in ("run/configuration", "run/model")
    }
    assert "d_model: 32" in text["run/configuration"]
    assert "| **attention** | MHA, 4 heads of size 8" in text["run/model"]
    assert "| model.blocks.0.attention.qkv.weight | 96 × 32 | 3,072 |" in text["run/model"]
