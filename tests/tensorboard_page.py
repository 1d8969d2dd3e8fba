"""TensorBoard in a browser without a screen: pages are opened, read, and kept as pictures."""

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.parse

import pytest

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


@contextlib.contextmanager
def serve(logs, folder):
    """The address of a TensorBoard that shows a folder.

    Args:
        logs: to be shown.
        folder: for what it prints.
    """
    output = folder / "output.txt"
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={logs.name}", "--load_fast=false"]
    command += ["--host=127.0.0.1", "--port=0"]
    with output.open("w") as file:
        # TensorBoard writes its --logdir on its pages: in the pictures it had better be a short one.
        server = subprocess.Popen(command, cwd=logs.parent, stdout=file, stderr=subprocess.STDOUT)
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
