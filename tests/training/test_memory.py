import re
import resource
import subprocess
import sys

import pytest
import torch

from lit_t6.cli import main

OWN = 3 << 30  # what the interpreter, PyTorch and its libraries map by themselves, about


@pytest.mark.slow
@pytest.mark.parametrize(("command", "option"), [("fit", "batch_size"), ("predict", "eval_batch_size")])
def test_a_batch_that_does_not_fit_is_refused_with_the_largest_that_does(options, tmp_path, command, option):
    """On a CPU whose memory is limited; the advice is then followed. What does not fit is the feed-forward layer."""
    large = ["--model.d_model=512", "--model.attention.head_dim=64", "--model.max_seq_len=256", "--trainer.max_steps=1"]
    small = ["--data.batch_size=1", "--data.eval_batch_size=1", "--data.eval_windows=1", "--data.predict_split=train"]
    words = [*[word for word in options if "max_s" not in word], *large, *small]
    assert main(["fit", *words]) == 0
    words += ["--ckpt_path", str(next(tmp_path.glob("**/last.ckpt")))] if command == "predict" else []
    words += [f"--predictions.path={tmp_path / 'losses.jsonl'}"]
    words += ["--data.eval_windows=null"] if command == "predict" else []

    def run(size):
        return subprocess.run(
            [sys.executable, "-W", "ignore", "cli.py", command, *words, f"--data.{option}={size}"],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (OWN + (1 << 29), OWN + (1 << 29))),
            env={"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        )

    result = run(4096)
    assert result.returncode == 1, result.stdout[-2000:] + result.stderr[-2000:]
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    advice = re.search(
        rf"data.{option}=4096 sequences of 256 tokens do not fit into the memory of cpu; the largest that does is "
        rf"(\d+): --data.{option} (\d+)\.",
        error,
    )
    assert advice, error
    assert "Traceback" not in result.stderr
    assert 1 <= int(advice[1]) < 4096
    assert run(max(1, int(advice[1]) * 3 // 4)).returncode == 0


@pytest.mark.gpu
def test_on_a_gpu_the_advice_fits(options, capsys):
    words = [*options, "--trainer.accelerator=gpu", "--model.d_model=1024", "--model.max_seq_len=1024"]
    words += ["--model.attention.head_dim=64", "--model.vocab_size=50304", "--trainer.max_steps=3"]
    words += ["--data.eval_batch_size=1", "--data.eval_windows=1", "--samples.max_new_tokens=0"]
    assert main(["fit", *words, "--data.batch_size=4096"]) == 1
    largest = int(re.search(r"the largest that does is (\d+)", capsys.readouterr().err)[1])
    assert largest > 1
    torch.cuda.empty_cache()
    assert main(["fit", *words, f"--data.batch_size={largest}"]) == 0
