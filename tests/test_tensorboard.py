"""What a person sees in TensorBoard after a training, read from the pages that a browser has drawn.

That an event is in the file does not say that TensorBoard shows it: columns may be hidden, charts empty. The pictures
in docs/ are taken here too, `make screenshots`.
"""

import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .tensorboard_page import SCREENSHOTS, Page, hparams_table, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def address(demo_logs, tmp_path_factory):
    """A TensorBoard's, which shows `demo_logs`."""
    with serve(demo_logs, tmp_path_factory.mktemp("tensorboard")) as found:
        yield found


@pytest.fixture(scope="module")
def trainings(demo_logs):
    """The names of the runs that trained; a folder of validations only has no loss to show."""
    folders = {path.parent for path in demo_logs.rglob("events.out.tfevents.*")}
    runs = [folder for folder in folders if "train/loss" in EventAccumulator(str(folder)).Reload().Tags()["scalars"]]
    assert runs, f"no run with train/loss in {demo_logs}"
    return sorted(folder.relative_to(demo_logs).as_posix() for folder in runs)


@pytest.fixture
def page(driver, address, tmp_path):
    folder = Path(SCREENSHOTS) if SCREENSHOTS else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return Page(driver, address, folder)


def test_scalars(page, trainings):
    cards = ["train/loss", "val/loss", "val/bits_per_byte"]
    page.open("scalars", height=470, tagFilter=f"^({'|'.join(cards)})$")
    page.wait_for_texts(*cards, *trainings, reload=True)
    page.wait(lambda: page.curves("tf-scalar-card")[:3].count(0) == 0, "curves in the first three cards")
    page.picture("scalars")


def test_hparams(page, trainings):
    """What is there before anybody ticks a column: TensorBoard hides all settings but five."""

    def complete():
        table = hparams_table(page)
        columns = ["parameters", "num_heads", "lr", "val/loss", "val/bits_per_byte"]
        numbers = [table.get(run, {}).get(column, "") for run in trainings for column in columns]
        ranks = [row.get("rank_q", "") for row in table.values()]  # not every mechanism has any
        return set(table) == set(trainings) and all(map(is_number, numbers)) and any(map(is_number, ranks))

    def is_number(text):
        return re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", text)

    page.open("hparams", width=2500)
    page.wait(complete, f"rows for {trainings} with settings, rank_q among them, and metrics", reload=True)
    # For the picture: room for the runs' names, every column in sight, no empty half. The side pane takes a fifth.
    columns = page.run(
        "const columns = [...find('vaadin-grid')[0].querySelectorAll('vaadin-grid-column')];"
        "columns.forEach((column, i) => column.width = i ? '140px' : '190px'); return columns.length;"
    )
    page.resize(round((190 + 140 * (columns - 1) + 20) / 0.8), 260 + 36 * len(trainings))
    page.picture("hparams")


def test_custom_scalars(page, trainings):
    page.open("custom_scalars", height=880)
    page.wait_for_texts("Loss", "Speed and memory", *trainings, reload=True)
    box = "tf-custom-scalar-multi-line-chart-card"
    page.wait(
        lambda: (curves := page.curves(box)) and min(curves) >= len(trainings), "a curve of each run in each chart"
    )
    page.picture("custom-scalars")


def test_text(page, trainings):
    page.open("text")
    page.wait_for_texts("run/configuration", "d_model:", "run/model", "samples/continuation", reload=True)
    # A configuration fills the window; the picture is of what is read more often.
    page.open("text", tagFilter="run/model|samples/", regexInput=f"^{trainings[0]}$")
    page.wait_for_texts("run/model", "samples/continuation")
    page.wait(lambda: page.run("return find('td').length;") > 0, "the model's table")
    page.picture("text")


def test_images(page, trainings):
    page.open("images", regexInput=f"^{trainings[0]}$")
    page.wait_for_texts("factors/figure", reload=True)
    loaded = "return find('img').filter(image => image.complete && image.naturalWidth > 100).length;"
    page.wait(lambda: page.run(loaded) > 0, "the figure")
    page.run("find('paper-checkbox').find(box => box.innerText.includes('actual image size')).click();")
    page.wait_until_still()
    page.resize(1500, round(page.run("return find('img')[0].getBoundingClientRect().bottom;")) + 30)
    page.picture("images")
