import torch


def randomised(config, d_model):
    """The module in float64, all of its weights random: the output projection starts at zero, norms at one."""
    module = config.build(d_model).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.5)
    return module
