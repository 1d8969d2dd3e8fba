import torch


def randomised(config, d_model):
    """The module in float64, all of its weights random: the output projection starts at zero, norms at one."""
    module = config.build(d_model).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.5)
    return module


def check_decoding(module, d_model):
    """Rows of ragged lengths, a prefill, one or several tokens at once, some taken back: each equals the forward."""
    x = torch.randn(3, 14, d_model, dtype=torch.float64)
    full = module(x)
    cache = module.config.build_cache(3, 14, torch.float64)
    rows = torch.arange(3)[:, None]
    with torch.no_grad():
        for num_new, kept in ((5, [5, 2, 4]), (1, None), (3, [7, 6, 5]), (1, None), (1, [0, 7, 3]), (4, None)):
            places = cache.next_positions(num_new)
            decoded = module(x[rows, places], cache=cache)
            torch.testing.assert_close(decoded, full[rows, places], rtol=0, atol=1e-10)
            if kept is not None:
                cache.truncate(kept)
    assert cache.lengths.tolist() == [4, 11, 7]
