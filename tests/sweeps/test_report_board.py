"""What TensorBoard shows of a study."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from lit_t6.sweeps.report.command import sweep_report

from .reported import VALUES, published


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return published(tmp_path_factory.mktemp("made_up"))


def test_tensorboard_reads_tables_and_figures_back(made_up):
    summary = EventAccumulator(str(made_up[3] / "tensorboard/summary"), size_guidance={"images": 0}).Reload()
    assert summary.Tags()["images"] == [f"report/{name}" for name in ("cells", "varied", "pareto", "curves")]
    for tag in summary.Tags()["images"]:
        (image,) = summary.Images(tag)
        assert image.encoded_image_string == (made_up[3] / f"{tag.removeprefix('report/')}.png").read_bytes()
        assert image.width > 500
    (text,) = summary.Tensors("report/table/text_summary")
    assert "| base (baseline)" in text.tensor_proto.string_val[0].decode()


def test_tensorboard_has_every_trial_with_the_same_numbers(made_up):
    seen = {}
    for cell, values in VALUES.items():
        for seed, value in enumerate(values):
            events = EventAccumulator(str(made_up[3] / "tensorboard" / cell / f"seed-{seed}")).Reload()
            content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
            seen[cell, seed] = metadata.parse_session_start_info_plugin_data(content).hparams
            scalars = events.Tags()["scalars"]
            assert ("result/val/bits_per_byte" in scalars) == (not isinstance(value, str))
            assert [point.step for point in events.Scalars("val/bits_per_byte")] == [10, 20, 30]
    columns = {tuple(sorted(hparams)) for hparams in seen.values()}
    assert len(columns) == 1
    names = set(*columns) - {"cell"}
    assert {"rank_q", "rank_k", "num_parameters", "cache_bytes_per_token", "seed", "completed"} <= names
    for hparams in seen.values():
        assert all(hparams[name].HasField("number_value") for name in names)
    assert seen["bad", 0]["completed"].number_value == 0


def test_a_second_report_takes_the_place_of_the_first(made_up, tmp_path):
    of = str(made_up[2])
    for _ in range(2):
        sweep_report([of], output=str(tmp_path))
    assert len(list((tmp_path / "tensorboard").rglob("events.out.tfevents.*"))) == 21
