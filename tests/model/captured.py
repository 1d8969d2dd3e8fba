import torch

from lit_t6.model import t6


def capture_blocks(monkeypatch, backend="aot_eager"):
    """What training compiles is captured whole and runs as it is: no compiler is awaited."""
    torch._dynamo.reset()
    block, *ends = (torch.compile(x, backend=backend, fullgraph=True) for x in (t6._run_block, t6._embed, t6._end))
    monkeypatch.setattr(t6, "_compiled_block", lambda for_one_token: block)
    monkeypatch.setattr(t6, "_compiled_ends", lambda: ends)
