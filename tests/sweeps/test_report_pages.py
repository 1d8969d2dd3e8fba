"""What a person sees of a report in TensorBoard, read from the pages that a browser has drawn."""

import re
from pathlib import Path

import pytest

from ..tensorboard_page import SCREENSHOTS, Page, hparams_table, serve
from .reported import VALUES, published

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TRIALS = {f"{cell}/seed-{seed}": value for cell, values in VALUES.items() for seed, value in enumerate(values)}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    *_, report = published(folder)
    with serve(report / "tensorboard", folder) as found:
        yield found


@pytest.fixture
def page(driver, address, tmp_path):
    folder = Path(SCREENSHOTS) if SCREENSHOTS else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return Page(driver, address, folder)


def is_number(text):
    return re.fullmatch(r"-?[\d.,]+(e[+-]?\d+)?", text)


def test_hparams_have_the_same_columns_in_every_trial(page):
    columns = ["rank_q", "rank_k", "cache_bytes_per_token", "seed"]

    def complete():
        table = hparams_table(page)
        numbers = [table.get(trial, {}).get(column, "") for trial in TRIALS for column in columns]
        metrics = [
            bool(is_number(table[trial].get("result/val/bits_per_byte", ""))) == (not isinstance(value, str))
            for trial, value in TRIALS.items()
            if trial in table
        ]
        return set(table) == set(TRIALS) and all(map(is_number, numbers)) and all(metrics)

    page.open("hparams", width=2600, height=1400)
    page.wait(complete, f"rows for all trials with {columns}, and results of those that completed", reload=True)
    page.picture("report-hparams")


def test_parallel_coordinates_have_a_line_for_each_trial_that_completed(page):
    page.open("hparams", width=1500, height=760)
    page.wait(lambda: hparams_table(page), "the table", reload=True)
    page.run("find('paper-tab').find(tab => tab.innerText.includes('PARALLEL COORDINATES')).click();")
    done = sum(not isinstance(value, str) for value in TRIALS.values())
    lines = (
        "return find('path').filter(line => line.parentNode.matches('.foreground') && line.getTotalLength()).length;"
    )
    page.wait(lambda: page.run(lines) == done, f"{done} lines")
    page.wait_for_texts("rank_q", "rank_k", "result/val/bits_per_byte")
    page.picture("report-parallel-coordinates")


def test_figures(page):
    page.open("images", height=1200)
    page.wait_for_texts("report/cells", "report/varied", "report/pareto", "report/curves", reload=True)
    loaded = "return find('img').filter(image => image.complete && image.naturalWidth > 500).length;"
    page.wait(lambda: page.run(loaded) >= 4, "four figures")
    page.picture("report-images")


def test_table(page):
    page.open("text", width=1800)
    page.wait_for_texts("report/table", "Best:", "3/4 (1 pruned)", "0/4 (2 diverged", reload=True)
    page.wait(lambda: page.run("return find('td').length;") >= 5 * len(VALUES), "the table")
    page.picture("report-table")


def test_curves(page):
    page.open("scalars", tagFilter="^val/bits_per_byte$")
    page.wait_for_texts("val/bits_per_byte", "base/seed-0", reload=True)
    page.wait(lambda: page.curves("tf-scalar-card")[:1] and page.curves("tf-scalar-card")[0] > 0, "curves")
    page.picture("report-scalars")
