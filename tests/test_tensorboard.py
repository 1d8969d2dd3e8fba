"""What a person sees in TensorBoard after a training, read from the pages that a browser has drawn.

That an event is in the file does not say that TensorBoard shows it: columns may be hidden, charts empty. The pictures
in docs/ are taken here too, `make screenshots`.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = 60  # seconds; a page takes 3 on 2 idle cores
SCREENSHOTS = os.environ.get("LIT_T6_SCREENSHOTS")
LIMIT = 200_000  # bytes a picture, so that the repository stays small

# TensorBoard nests its pages in shadow roots, into which neither innerText nor a CSS selector looks.
JAVASCRIPT = """
function shown(node) { return !node.checkVisibility || node.checkVisibility(); }
function* elements(root) {
  for (const element of root.querySelectorAll("*")) {
    if (shown(element)) yield element;
    if (element.shadowRoot) yield* elements(element.shadowRoot);
  }
}
function* texts(node) {
  if (node.nodeType === Node.TEXT_NODE) { if (node.data.trim()) yield node.data.trim(); return; }
  if (["STYLE", "SCRIPT", "TEMPLATE", "DOM-MODULE"].includes(node.tagName) || !shown(node)) return;
  if (node.shadowRoot) yield* texts(node.shadowRoot);
  for (const child of node.childNodes) yield* texts(child);
}
function find(selector, root = document) {
  const below = [...elements(root), ...(root.shadowRoot ? elements(root.shadowRoot) : [])];
  return below.filter(element => element.matches(selector));
}
"""


class Page:
    """One tab of TensorBoard in a browser."""

    def __init__(self, driver, address, folder):
        self.driver, self.address, self.folder = driver, address, folder

    def open(self, tab, *, width=1500, height=860, **filters):
        self.resize(width, height)
        self.driver.get("about:blank")  # from one #fragment to the next the browser would not load anything
        words = [f"{name}={urllib.parse.quote(pattern)}" for name, pattern in filters.items()]
        self.driver.get(self.address + "#" + "&".join([tab, *words]))

    def resize(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def run(self, script, *arguments):
        return self.driver.execute_script(JAVASCRIPT + script, *arguments)

    def texts(self):
        return self.run("return [...texts(document.body)];")

    def curves(self, box):
        """The number of curves in every visible `box`."""
        return self.run("return find(arguments[0]).map(box => find('path.line', box).length);", box)

    def wait(self, condition, what, *, reload=False):
        """Until `condition()` is true. `reload` is for the first wait on a page, as the server may still be reading."""
        end = time.monotonic() + PATIENCE
        next_reload = time.monotonic() + 10
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"{self.driver.current_url} does not show {what}. It shows:\n" + "\n".join(self.texts()))
            if reload and time.monotonic() > next_reload:
                self.driver.refresh()
                next_reload += 10
            time.sleep(0.2)

    def wait_for_texts(self, *wanted, reload=False):
        for text in wanted:
            self.wait(lambda text=text: any(text in shown for shown in self.texts()), repr(text), reload=reload)

    def wait_until_still(self):
        """Until nothing moves: charts fade in, panes unfold."""
        seen = [b"", self.driver.get_screenshot_as_png()]

        def still():
            time.sleep(0.3)
            seen[:] = seen[1], self.driver.get_screenshot_as_png()
            return seen[0] == seen[1]

        self.wait(still, "a picture that stays the same")

    def picture(self, name):
        self.wait_until_still()
        path = self.folder / f"tensorboard-{name}.png"
        path.write_bytes(self.driver.get_screenshot_as_png())
        assert 10_000 < path.stat().st_size < LIMIT, f"{path} has {path.stat().st_size} bytes"


@pytest.fixture(scope="session")  # as wide as demo_logs, so that nobody waits for a training and is skipped then
def driver():
    programs = {"chromium": shutil.which("chromium"), "chromium-driver": shutil.which("chromedriver")}
    missing = [package for package, program in programs.items() if program is None]
    if missing:
        reason = f"not on the PATH: {', '.join(missing)}; on Debian: apt-get install chromium chromium-driver"
        # Whoever asks for pictures, or checks a change for others, must not take a skipped test for a passed one.
        if "CI" in os.environ or SCREENSHOTS:
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    # Root in a container has neither Chromium's sandbox nor much /dev/shm.
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-background-networking", "lang=en"):
        options.add_argument(f"--{word}")
    driver = webdriver.Chrome(options=options, service=Service(programs["chromium-driver"]))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(demo_logs, tmp_path_factory):
    """A TensorBoard's, which shows `demo_logs`."""
    output = tmp_path_factory.mktemp("tensorboard") / "output.txt"
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={demo_logs.name}", "--load_fast=false"]
    command += ["--host=127.0.0.1", "--port=0"]
    with output.open("w") as file:
        # TensorBoard writes its --logdir on its pages: in the pictures it had better be a short one.
        server = subprocess.Popen(command, cwd=demo_logs.parent, stdout=file, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + PATIENCE
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", output.read_text())):
            assert server.poll() is None, f"TensorBoard ended with {server.returncode}:\n{output.read_text()}"
            assert time.monotonic() < end, f"TensorBoard does not say where it is:\n{output.read_text()}"
            time.sleep(0.2)
        yield found.group()
    finally:
        server.terminate()
        server.wait(timeout=30)


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


def hparams_table(page):
    """{name of the run: {column: text}}. The cells are siblings; where they are drawn tells row and column."""
    cells = page.run(
        "return find('vaadin-grid-cell-content').map(cell => [cell.getBoundingClientRect(), cell.innerText.trim()])"
        ".map(([box, text]) => [box.left, box.top, text]);"
    )
    first = min((top for left, top, text in cells if text == "Trial ID"), default=0)
    near = 20  # pixels; a checkbox or a heading of two lines sits a little higher than its neighbours
    columns = {left: text for left, top, text in cells if abs(top - first) < near}
    rows = [(top, text) for left, top, text in cells if columns.get(left) == "Trial ID" and text != "Trial ID"]
    return {
        run: {columns[left]: text for left, top, text in cells if abs(top - row) < near and left in columns}
        for row, run in rows
    }


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
