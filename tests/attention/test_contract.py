import pytest
import torch

from lit_t6.testing import CONTRACT
from lit_t6.testing.attention_contract import check_positions_are_relative

from .mechanisms import MECHANISMS

RUNS = [
    (check, mechanism)
    for mechanism, config in MECHANISMS.items()
    for check in CONTRACT
    # decay makes a score depend on the positions themselves, as upstream's does
    if not (check is check_positions_are_relative and getattr(config, "rope_decay", None))
]


@pytest.mark.parametrize(("check", "mechanism"), RUNS, ids=lambda given: getattr(given, "__name__", given))
def test_contract(check, mechanism):
    check(MECHANISMS[mechanism], d_model=48)


def test_decay_depends_on_positions_themselves():
    with pytest.raises(AssertionError):
        check_positions_are_relative(MECHANISMS["rope with decay"], d_model=48)


def error(actual, exact):
    """Root mean square of the difference."""
    return (actual.detach().double().cpu() - exact).square().mean().sqrt().item()


def decoded(module, x, cache, lengths, steps):
    """What comes for the tokens after ragged prompts, one at a time, and where they stand."""
    with torch.no_grad():
        module(x[:, : max(lengths)], cache=cache)
        cache.truncate(lengths)
        places = torch.tensor(lengths, device=x.device)[:, None] + torch.arange(steps, device=x.device)
        rows = torch.arange(len(lengths), device=x.device)[:, None]
        new = [module(x[rows, places[:, [n]]], cache=cache) for n in range(steps)]
    return torch.cat(new, dim=1), (rows.cpu(), places.cpu())


@pytest.mark.gpu
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_on_a_gpu_as_exact_as_on_the_cpu(mechanism):
    """Full forward and ragged cached decoding, in float32 and under autocast: twice the error of the CPU at most."""
    torch.manual_seed(0)
    config, lengths = MECHANISMS[mechanism], (33, 20)
    module = config.build(48).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=48**-0.5)
    x = torch.randn(2, 40, 48, dtype=torch.float64)
    exact = module(x).detach()
    module, x = module.float(), x.float()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        found = {}
        for device in ("cpu", "cuda"):
            placed, tokens = module.to(device), x.to(device)
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                full = placed(tokens)
                new, places = decoded(placed, tokens, config.build_cache(2, 40, dtype, device), lengths, 5)
            found[device] = error(full, exact), error(new, exact[places])
            full.float().square().mean().backward()
            for name, parameter in placed.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
                parameter.grad = None
        unit = torch.finfo(dtype).eps * exact.square().mean().sqrt().item()
        for on_cpu, on_gpu in zip(found["cpu"], found["cuda"], strict=True):
            assert on_gpu <= 2 * on_cpu + unit, f"{dtype}: {found}"


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # the compiler's advice; here float32 is wanted
@pytest.mark.parametrize("mechanism", ["tpa", "kv only", "shared static b", "third order", "mla", "mfa", "head norm"])
def test_compiled_in_one_graph(mechanism):
    module = MECHANISMS[mechanism].build(48).cuda()
    torch.nn.init.normal_(module.out.weight)
    x = torch.randn(2, 64, 48, device="cuda", requires_grad=True)
    expected = torch.autograd.grad(module(x).square().sum(), (x, *module.parameters()))
    compiled = torch.compile(module, fullgraph=True)
    for actual, wanted in zip(
        torch.autograd.grad(compiled(x).square().sum(), (x, *module.parameters())), expected, strict=True
    ):
        assert error(actual, wanted.double().cpu()) < 1e-4 * wanted.square().mean().sqrt().item()
