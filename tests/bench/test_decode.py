"""`bench decode` end to end, on a CPU with tiny shapes, and on a GPU with small ones."""

import json

import pytest
import torch

import lit_t6.bench.decode as decode
from lit_t6.bench.mechanisms import MECHANISMS
from lit_t6.bench.peers import Peer, make_peers
from lit_t6.cli import main, run

TINY = ["bench", "decode", "--device=cpu", "--dtype=float32", "--d_model=64", "--head_dim=16", "--kv_groups=2"]
TINY += ["--ranks=6,2,2", "--batch", "1", "2", "--cache", "32,64", "--memory_gib=0.02"]
GRID = [(4, b, m) for b in (1, 2) for m in (32, 64)]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Threads that wait for each other take long where others are at work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Planted(Peer):
    """A peer that does what a test wants."""

    def __init__(self, act):
        super().__init__("planted", "", MECHANISMS["MQA"])
        self.act = act

    def why_not(self, point):
        return None

    def prepare(self, point, sets):
        return [lambda inputs=inputs: self.act(inputs) for inputs in sets]


def plant(monkeypatch, act):
    monkeypatch.setattr(decode, "make_peers", lambda *given: [*make_peers(*given), Planted(act)])


def read(folder):
    return json.loads((folder / "decode.json").read_text())


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    return run([*TINY, f"--output={folder}"]), folder


def test_every_point_is_timed_by_all_that_can(ran):
    results, folder = ran
    whole = read(folder)
    timed = {
        (e["num_heads"], e["batch"], e["cache"], e["mechanism"]) for e in whole["entries"] if e["status"] == "timed"
    }
    assert timed == {(*shape, mechanism) for shape in GRID for mechanism in MECHANISMS}
    assert all(e["ms"] > 0 and e["error"] < 1e-5 for e in whole["entries"] if e["status"] == "timed")
    flex = {(e["variant"], e["status"], e["why"]) for e in whole["entries"] if e["library"] == "flex"}
    assert flex == {("not compiled", "timed", None), ("", "left out", "needs a CUDA GPU")}
    assert whole["stopped"] is None
    assert whole["points_planned"] == len(results.shapes) == 4
    assert whole["facts"]["versions"]["torch"] == torch.__version__
    assert whole["read_rate"]["kernels_that_only_read"]["torch.sum"] > 0


def test_the_floor_is_the_unpadded_cache_at_the_best_rate(ran):
    whole = read(ran[1])
    rates = [*whole["read_rate"]["kernels_that_only_read"].values()]
    rates += [e["cache_bytes"] / e["ms"] / 1e6 for e in whole["entries"] if e["ms"]]
    assert whole["read_rate"]["best_gb_per_sec"] == pytest.approx(max(rates))
    (ours,) = [e for e in whole["entries"] if "floor_ms" in e and (e["batch"], e["cache"]) == (2, 64)]
    assert ours["cache_bytes"] == 4 * (2 + 2) * (4 + 16) * 2 * 64
    assert ours["floor_ms"] == pytest.approx(ours["cache_bytes"] / max(rates) / 1e6)


def test_the_table_shows_the_best_of_each(ran):
    results, folder = ran
    table = (folder / "decode.md").read_text()
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    assert lines[0] == ["H", "batch", "cache", "floor", "ours", "of floor", "MQA", "GQA-2", "MHA", "MLA"]
    assert [tuple(int(cell) for cell in line[:3]) for line in lines[2:]] == GRID
    ours, mha = results.ours(GRID[0]), results.best(GRID[0], "MHA")
    assert mha.ms == min(e.ms for e in results.entries if e.shape == GRID[0] and e.mechanism == "MHA" and e.ms)
    assert lines[2][4] == f"{ours.ms:.4f}"
    assert lines[2][8] == f"{mha.ms:.4f} {mha.ms / ours.ms:.2f}× {mha.library} {mha.variant}"
    assert "Left out: TPA, authors', --upstream does not say where the authors' kernels are." in table
    assert "(640 bytes a token at H 4), without padding" not in table
    assert f"({4 * 4 * (4 + 16)} bytes a token at H 4), without padding" in table


def test_the_picture_has_a_panel_for_each_batch(ran):
    picture = (ran[1] / "decode.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(picture[place : place + 4]) for place in (16, 20))
    assert width > 2 * 400
    assert width > height


def test_a_wrong_output_has_no_time_and_the_status_is_1(tmp_path, monkeypatch, capsys):
    plant(monkeypatch, lambda inputs: 1.01 * torch.zeros_like(inputs["q"]))
    assert main([*TINY, f"--output={tmp_path}", "--batch=1", "--cache=32", "--mechanisms=MQA"]) == 1
    shown = capsys.readouterr()
    assert "error: 1 results are wrong and have no time, such as MQA planted at H 4, batch 1, cache 32: " in shown.err
    (entry,) = [e for e in read(tmp_path)["entries"] if e["library"] == "planted"]
    assert (entry["status"], entry["ms"]) == ("wrong", None)
    assert "wrong: MQA planted at H 4, batch 1, cache 32: relative error 1.00e+00, allowed 1e-04" in shown.out


def test_a_peer_that_fails_is_an_entry(tmp_path, monkeypatch, capsys):
    def act(inputs):
        raise RuntimeError("no kernel for this\nand so on")

    plant(monkeypatch, act)
    assert main([*TINY, f"--output={tmp_path}", "--batch=1", "--cache=32", "--mechanisms=MQA"]) == 0
    (entry,) = [e for e in read(tmp_path)["entries"] if e["library"] == "planted"]
    assert (entry["status"], entry["why"]) == ("failed", "RuntimeError: no kernel for this")
    assert "MQA planted" in capsys.readouterr().out


def test_ctrl_c_keeps_what_was_measured(tmp_path, monkeypatch):
    def act(inputs):
        if inputs["k"].shape[2] == 64:
            raise KeyboardInterrupt
        return torch.zeros_like(inputs["q"])

    plant(monkeypatch, act)
    assert main([*TINY, f"--output={tmp_path}", "--batch=1", "--mechanisms=MQA"]) == 130
    whole = read(tmp_path)
    assert whole["stopped"] == "stopped by Ctrl-C"
    assert {e["cache"] for e in whole["entries"] if e["status"] == "timed"} == {32, 64}
    assert "stopped by Ctrl-C" in (tmp_path / "decode.md").read_text()
    assert (tmp_path / "decode.png").exists()


def test_a_time_limit_keeps_what_was_measured_and_another_run_goes_on(tmp_path, capsys):
    words = [*TINY, f"--output={tmp_path}", "--mechanisms=MQA"]
    run([*words, "--seconds=1e-9"])
    whole = read(tmp_path)
    assert whole["stopped"] == "stopped by --seconds"
    (timed,) = [e for e in whole["entries"] if e["status"] == "timed"]
    assert (timed["mechanism"], timed["cache"]) == ("TPA", 32)
    assert "Of 4 points 1 were begun: stopped by --seconds." in (tmp_path / "decode.md").read_text()
    assert main(words) == 1
    assert "decode.json is there: --resume true adds to it, --overwrite true replaces it." in capsys.readouterr().err
    results = run([*words, "--resume=true"])
    assert results.shapes == GRID
    assert len(results.facts["commands"]) == 2
    assert results.ours(GRID[0]).ms == timed["ms"]
    assert main([*words, "--resume=true", "--seed=1"]) == 1
    assert "was measured with seed 0, this is 1" in capsys.readouterr().err


def test_what_does_not_fit_in_memory_is_told(tmp_path, capsys):
    results = run([*TINY, f"--output={tmp_path}", "--batch=1", "--cache=32", "--memory_gib=0.0003"])
    assert {e.status for e in results.entries if e.mechanism == "TPA" and e.library == "lit_t6"} == {"timed"}
    assert {e.status for e in results.entries if e.mechanism == "MLA" and e.status != "left out"} == {"no memory"}
    assert "GiB, there is room for 0.0" in capsys.readouterr().out
    assert "| no memory" in (tmp_path / "decode.md").read_text()


def test_a_truth_that_memory_does_not_hold_is_an_entry_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    class Large(type(MECHANISMS["GQA"])):
        def exact(self, point, inputs):
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")

    large = Large("GQA", lambda point: point.kv_groups)
    monkeypatch.setitem(MECHANISMS, "GQA", large)
    results = run([*TINY, f"--output={tmp_path}", "--batch=1", "--cache=32"])
    assert {e.status for e in results.entries if e.mechanism == "GQA"} == {"no memory", "left out"}
    assert {e.mechanism for e in results.entries if e.ms} == {"TPA", "MQA", "MHA", "MLA"}
    assert "inputs and truth: OutOfMemoryError: tried to allocate 9 GiB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peers", "torhc"], "peers: there is no 'torhc'; did you mean torch? There are lit_t6, upstream, torch, "),
        (["--mechanisms=MHAA"], "mechanisms: there is no 'MHAA'; did you mean MHA? There are TPA, MQA, "),
        (["--ranks=6,2"], "ranks: expected three numbers, Rq,Rk,Rv such as 16,1,1, got [6, 2]."),
        (["--cache", "0"], "cache: expected numbers of at least 1, got [0]."),
        (["--cache"], "--cache needs a value."),
        (["--cash=3"], "there is no option --cash; did you mean --cache?"),
        (["--d_model=100"], "d_model: expected multiples of head_dim 16, got [100]."),
        (["--upstream=/nowhere"], "upstream: /nowhere holds neither flashtpa_decode_triton.py nor"),
        (["--device=gpu"], "device: 'gpu', expected cuda, cuda:1 … or cpu."),
        (["--seconds=0"], "seconds must be above 0, got 0.0."),
        (["--resume=true", "--overwrite=true"], "choose one."),
    ],
)
def test_errors_are_one_line(words, message, capsys, tmp_path):
    assert main([*TINY, f"--output={tmp_path / 'speed'}", *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "speed").exists()


def test_a_benchmark_is_named(capsys):
    assert main(["bench", "decoed"]) == 1
    assert "there is no benchmark 'decoed'; did you mean decode? There are decode, train." in capsys.readouterr().err
    assert main(["bench"]) == 1
    with pytest.raises(SystemExit):
        main(["bench", "decode", "--help"])
    assert "python cli.py bench decode --output" in capsys.readouterr().out


@pytest.mark.gpu
def test_a_small_grid_on_a_gpu(tmp_path):
    words = ["bench", "decode", "--num_heads", "16", "47", "--ranks=6,2,2", "--batch=2", "--cache", "512", "4096"]
    results = run([*words, "--peers", "lit_t6", "torch", f"--output={tmp_path}"])
    for shape in [(heads, 2, cache) for heads in (16, 47) for cache in (512, 4096)]:
        ours = results.ours(shape)
        assert ours is not None
        assert results.floor_ms(ours) < ours.ms < 1
        for mechanism in ("MQA", "MHA", "MLA"):
            kernels = {e.library for e in results.entries if e.shape == shape and e.mechanism == mechanism and e.ms}
            assert kernels == {"lit_t6", "torch"}, mechanism
    assert results.best_rate()[0] > 500
    assert not results.wrong
