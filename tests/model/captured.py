import torch

from lit_t6.model import t6


def capture_blocks(monkeypatch, backend="aot_eager"):
    """Blocks are captured whole and run as they are: nothing waits for a compiler."""
    torch._dynamo.reset()
    captured = torch.compile(t6._run_block, backend=backend, fullgraph=True)
    monkeypatch.setattr(t6, "_compiled_block", lambda for_one_token: captured)
