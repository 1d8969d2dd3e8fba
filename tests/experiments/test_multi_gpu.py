import json
import math

import pytest
import yaml

from experiments.multi_gpu import cases, scaling
from experiments.multi_gpu.cases import Case, plan


def measured(devices, strategy, global_batch, rate, loss):
    return {
        "devices": devices,
        "strategy": strategy,
        "global_batch": global_batch,
        "steps": 10,
        "status": "measured",
        "tokens_per_sec": rate,
        "step_ms": 10.0,
        "peak_gib": 1.0,
        "losses": {5: 5.0, 10: loss},
        "grad_norms": {5: 1.0, 10: 2.0},
    }


def test_each_number_of_devices_has_one_device_beside_it():
    assert plan([1, 2, 4], batch=20, steps=60, loss_steps=20) == [
        Case(1, "one", 20, 60),
        *(Case(2, "ddp", 40, 60), Case(1, "one", 40, 20), Case(1, "one", 40, 20, 2), Case(2, "fsdp", 40, 60)),
        *(Case(4, "ddp", 80, 60), Case(1, "one", 80, 20), Case(1, "one", 80, 20, 2), Case(4, "fsdp", 80, 60)),
    ]
    assert Case(1, "one", 5, 20, 2) not in plan([1, 5], batch=1, steps=60, loss_steps=20)


@pytest.mark.parametrize(("loss", "right"), [(4.001, True), (4.02, False), (math.nan, False)])
def test_losses_that_are_not_those_of_one_device_are_problems(loss, right):
    found = [measured(1, "one", 20, 100.0, 4.5), measured(2, "ddp", 40, 195.0, loss), measured(1, "one", 40, 1.0, 4.0)]
    problems = scaling.check(found, "gpu")
    assert (problems == []) == right
    if not right:
        assert "2 × ddp: losses at step 10 are" in problems[0]


def test_where_one_device_is_far_from_itself_several_may_be_further():
    one, two = measured(1, "one", 40, 1.0, 4.0), measured(2, "ddp", 40, 195.0, 4.02)
    halves = measured(1, "one", 40, 1.0, 4.008) | {"micro_batches": 2}
    assert "losses at step 10 are 4.02" in scaling.check([one, two], "gpu")[0]
    assert scaling.check([one, halves, two], "gpu") == []
    assert two["apart"] == pytest.approx({"5": 0.0, "10": 0.005})
    assert two["noisy"] == {"losses": {"10": pytest.approx(0.002)}}
    two["grad_norms"][10], halves["grad_norms"][10] = 2.4, 2.2
    assert scaling.check([one, halves, two], "gpu") == []
    assert two["noisy"]["grad_norms"] == {"10": pytest.approx(0.1)}


@pytest.mark.parametrize("loss", [math.nan, math.inf, 4.6])
def test_but_not_by_any_distance(loss):
    one, two = measured(1, "one", 40, 1.0, 4.0), measured(2, "ddp", 40, 195.0, loss)
    halves = measured(1, "one", 40, 1.0, 4.008) | {"micro_batches": 2}
    assert "2 × ddp: losses at step 10 are" in scaling.check([one, halves, two], "gpu")[0]
    halves["losses"][10] = 4.001
    assert "within 9.8e-04" in scaling.check([one, halves, two], "gpu")[0]
    halves["losses"][10] = math.nan
    assert scaling.check([one, halves, two], "gpu") == [
        "one device with 40 sequences a step: losses are not finite",
    ]


def test_halves_are_half_of_the_batch():
    settings = {"batch": 20, "config": "x.yaml", "accelerator": "cpu", "log_every": 5, "compile": None}
    words = [cases.words_of(Case(1, "one", 40, 9, number), settings, "data", "folder") for number in (1, 2)]
    assert [word for each in words for word in each if "batch_size" in word] == [
        *("--data.batch_size=20", "--data.global_batch_size=40"),
        *("--data.batch_size=10", "--data.global_batch_size=40"),
    ]


def test_a_gradient_that_is_a_sum_is_a_problem():
    found = [measured(1, "one", 40, 1.0, 4.0), measured(2, "fsdp", 40, 195.0, 4.0)]
    found[1]["grad_norms"] = {5: 2.0, 10: 4.0}
    assert "2 × fsdp: grad_norms at step" in scaling.check(found, "gpu")[0]
    assert "no run of one device" in scaling.check(found[1:], "gpu")[0]


def test_the_table_says_how_far_from_linear():
    runs = [measured(1, "one", 20, 100.0, 4.5), measured(2, "ddp", 40, 195.0, 4.0), measured(1, "one", 40, 1.0, 4.0)]
    assert scaling.check(runs, "gpu") == []
    facts = {"same": {"device": "X", "torch": "2.11"}}
    settings = {"config": "configs/paper/medium-tpa.yaml", "batch": 20}
    said = scaling.table({"cases": runs, "facts": facts, "settings": settings, "missing": ["2 × fsdp: no time"]})
    assert "| 1 |  | 20 | 100 | 1.000 |  | 10.0 | 1.0 |  |  |  |  |" in said
    assert "| 2 | DDP | 40 | 195 | 0.975 |  | 10.0 | 1.0 | 5, 10 | 4.00000 | 4.00000 | 0.0e+00 |" in said
    assert "far from itself" not in said
    runs[1]["noisy"] = {"losses": {"10": 0.0029}}
    told = scaling.table({"cases": runs, "facts": facts, "settings": settings, "missing": []})
    assert "| 10.0 | 1.0 | 5 | 5.00000 | 5.00000 | 0.0e+00 |" in told
    assert "2 × DDP, losses where one device is far from itself" in told
    assert told.endswith("apart by 0.0e+00 at 10 (one device 2.9e-03).\n")
    assert said.endswith("Not measured: 2 × fsdp: no time.\n")


def test_the_slowest_device_sets_the_pace(monkeypatch, tmp_path):
    rates = {"0": 100.0, "3": 96.0}

    def run(case, settings, data, cache, seconds, variables=None):
        return measured(1, "one", 20, rates[variables["CUDA_VISIBLE_DEVICES"]], 4.5)

    monkeypatch.setattr(cases, "run_case", run)
    alone = cases.run_on_each(Case(1, "one", 20, 10), {}, tmp_path, tmp_path, 9.0, ["0", "3"])
    assert (alone["tokens_per_sec"], alone["each"]) == (100.0, [100.0, 96.0])
    found = [alone, measured(2, "ddp", 40, 190.0, 4.0), measured(1, "one", 40, 1.0, 4.0)]
    assert scaling.check(found, "gpu") == []
    facts = {"same": {"device": "X", "torch": "2.11"}}
    settings = {"config": "configs/paper/medium-tpa.yaml", "batch": 20}
    said = scaling.table({"cases": found, "facts": facts, "settings": settings, "missing": []})
    assert "| 2 | DDP | 40 | 190 | 0.950 | 0.969 |" in said
    assert "at the same time; 100, 96 tokens/s." in said


@pytest.mark.parametrize("words", [["--devices", "2", "4"], ["--steps", "5", "--warmup", "5"], ["--loss_steps", "99"]])
def test_settings_that_measure_nothing_are_refused(words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        scaling.main(["--accelerator=cpu", f"--output={tmp_path}", *words])
    assert "error: --" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_are_measured(tmp_path, capsys):
    attention = {"class_path": "TPA", "init_args": {"num_heads": 3, "head_dim": 16}}
    model = {"vocab_size": 512, "max_seq_len": 32, "d_model": 32, "num_layers": 2, "attention": attention}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"model": model, "data": {"num_workers": 0}}))
    words = ["--accelerator=cpu", f"--config={tmp_path / 'tiny.yaml'}", "--devices", "1", "2", "--batch=2", "--steps=8"]
    words += ["--warmup=2", "--loss_steps=4", "--log_every=2", f"--output={tmp_path / 'out'}", "--seconds=250"]
    assert scaling.main(words) == 0
    said = capsys.readouterr()
    assert "| 2 | DDP | 4 |" in said.out
    assert "| 2 | FSDP | 4 |" in said.out
    assert "2 × fsdp, 4 sequences a step: " in said.err
    result = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert result["missing"] == []
    assert [case["strategy"] for case in result["cases"]] == ["one", "ddp", "one", "one", "fsdp"]
    assert all(max(case["apart"].values()) < 1e-5 for case in result["cases"] if case["devices"] == 2)
    assert (tmp_path / "out" / "scaling.png").read_bytes()[:4] == b"\x89PNG"
