"""Starting kernels again, and when that is not all that a call does."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from lit_t6.ops.launch import Launch, is_watched


def test_a_launch_hands_over_addresses_and_what_stays_in_the_kernel_s_order():
    """A compiled kernel is Triton's own and needs a GPU: here is one that notes what it is given."""
    started = []

    class Compiled:
        def __getitem__(self, grid):
            return lambda *given: started.append((grid, given))

    class Kernel:
        arg_names = ("x_ptr", "length", "WIDTH", "scale")

        def __getitem__(self, grid):
            return lambda *given, **values: (started.append((grid, given, values)), Compiled())[1]

    x = torch.zeros(3)
    launch = Launch(Kernel(), (1, 2, 3), scale=0.5, num_warps=4, WIDTH=7)
    assert not launch.compiled
    launch.first(x, 3)
    assert launch.compiled
    launch.again(x.data_ptr(), 5)
    assert started == [
        ((1, 2, 3), (x, 3), {"scale": 0.5, "num_warps": 4, "WIDTH": 7}),
        ((1, 2, 3), (x.data_ptr(), 5, 7, 0.5)),
    ]


def test_operators_are_seen_by_those_who_look():
    assert not is_watched()
    with FakeTensorMode():
        assert is_watched()
    with torch.profiler.profile():
        assert is_watched()
    seen = []
    make_fx(lambda x: (seen.append(is_watched()), x + 1)[1], pre_dispatch=True)(torch.zeros(2))
    assert seen.pop()
    torch.func.vmap(lambda x: (seen.append(is_watched()), x)[1])(torch.zeros(2))
    assert seen == [True]
    assert not is_watched()
