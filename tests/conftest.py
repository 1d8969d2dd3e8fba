import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

# Worker processes and command lines started by tests share two cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if not torch.cuda.is_available():  # before any kernel is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure():
    importlib.import_module("lightning.pytorch")  # its log goes to the stderr of this moment: that of a test is closed


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    for item in items:
        if "demo" in item.fixturenames:
            item.add_marker(pytest.mark.alone)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _signals():
    """A command that saved its training at a signal keeps its handlers, as it is about to end the process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Path:
    """Documents that come with every Python, its own documentation; copies left out, the first 78 of them."""
    folder = tmp_path_factory.mktemp("texts")
    distinct = list(dict.fromkeys(topics.values()))[:78]
    for number, text in enumerate(distinct):
        (folder / f"{number:02}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def prepared(texts, tmp_path_factory) -> Path:
    """The documents of `texts`, prepared with a vocabulary of 400 tokens."""
    from lit_t6.data import prepare_corpus

    folder = tmp_path_factory.mktemp("data") / "python"
    prepare_corpus([texts], folder, vocab_size=400, validation_fraction=0.05, test_fraction=0.05)
    return folder


@pytest.fixture(scope="session")
def upstream_folder(tmp_path_factory) -> Path:
    """A tiny T6 with random weights, in a folder as the authors' code saves one, for 400 tokens."""
    from lit_t6.interop.archs import find_arch, read_settings
    from lit_t6.interop.layout import layout, sizes

    folder = tmp_path_factory.mktemp("upstream") / "T6-small"
    folder.mkdir()
    config = {"vocab_size": 400, "n_layer": 2, "n_embd": 48, "n_head": 5, "head_dim": 16, "q_rank": 3, "block_size": 32}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt2", "dropout": 0.0, "rank": None}))
    arch = find_arch("T6")
    settings = read_settings(config, arch)
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(sizes(shape, settings), generator=generator) * 0.1
        for name, shape in layout(arch, settings).items()
    }
    torch.save(weights | {"lm_head.weight": weights["transformer.wte.weight"]}, folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def options(prepared, tmp_path):
    """The quickstart, small enough for a test."""
    return [
        "--config=configs/quickstart.yaml",
        f"--data.path={prepared}",
        "--model.vocab_size=400",
        "--model.max_seq_len=32",
        "--model.d_model=64",
        "--model.num_layers=1",
        "--model.attention.head_dim=8",
        "--trainer.max_steps=3",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.log_every_n_steps=1",
        f"--trainer.logger.init_args.save_dir={tmp_path}",
    ]


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The whole of `make demo`, once, in a folder that looks like the checkout: its process and the folder."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("cli.py", "lit_t6", "configs", "experiments"):
        (folder / name).symlink_to(Path(name).resolve())
    command = [sys.executable, "-m", "experiments.shakespeare.run"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False), folder


@pytest.fixture(scope="session")
def demo_logs(demo, tmp_path_factory):
    """Where the demo's curves are, and nothing else: TensorBoard prints the folder's name."""
    result, folder = demo
    assert result.returncode == 0, result.stderr[-3000:]
    logs = tmp_path_factory.mktemp("demo") / "logs"
    shutil.copytree(folder / "logs", logs)
    return logs


@pytest.fixture(scope="session")  # as wide as demo_logs, so that nobody waits for a training and is skipped then
def driver():
    """A browser without a screen."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    programs = {"chromium": shutil.which("chromium"), "chromium-driver": shutil.which("chromedriver")}
    missing = [package for package, program in programs.items() if program is None]
    if missing:
        reason = f"not on the PATH: {', '.join(missing)}; on Debian: apt-get install chromium chromium-driver"
        # Whoever asks for pictures, or checks a change for others, must not take a skipped test for a passed one.
        if "CI" in os.environ or "LIT_T6_SCREENSHOTS" in os.environ:
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
