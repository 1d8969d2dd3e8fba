"""Compiles the kernels of `lit_t6.ops.dense.hopper` for a Hopper GPU that need not be there, and names each."""

from triton import compile as compiled
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource
from triton.experimental.gluon.language import NVMMASharedLayout

from lit_t6.ops.dense import hopper
from lit_t6.ops.dense.kernels.attention_backward import _dense_attention_bwd_kernel
from lit_t6.ops.dense.kernels.attention_forward import _dense_attention_fwd_kernel

ENDS = {"length": "i32", "num_heads": "i32", "scale": "fp32", "starts_ptr": "*i32", "rows_ptr": "*i32"}


def tile(rows, dtype="bf16"):
    """The descriptor of a matrix that is read in such tiles of 64 columns."""
    layout = NVMMASharedLayout(*((128, 16) if dtype == "bf16" else (0, 32)), rank=2)
    return f"tensordesc<{dtype}[{rows},64],{layout!r}>"


def check(kernel, signature, constants):
    source = GluonASTSource(kernel, {**signature, **dict.fromkeys(constants, "constexpr")}, constants, {})
    found = compiled(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": hopper._WARPS})
    assert "wgmma" in found.asm["ptx"]
    assert found.metadata.shared < 227 * 1024, "what a program of a Hopper GPU may have"


if __name__ == "__main__":
    given = dict.fromkeys(("q", "k", "v", "do"), tile(64)) | {"lines": tile(2, "fp32")}
    found = {"dq_ptr": "*fp32", "stored_ptr": "*i32", "dk_ptr": "*bf16", "dv_ptr": "*bf16"}
    sizes = {"M": hopper.QUERIES, "D": hopper.SIZE}
    settings = {"STAGES": hopper._BACK_STAGES, "REGISTERS": hopper._BACK_REGISTERS}
    for stores in (True, False):
        check(_dense_attention_bwd_kernel, {**given, **found, **ENDS}, {**sizes, **settings, "STORES": stores})
    print("back")
    for name, (_, (keys, stages, groups, registers)) in zip(("forward", "long"), hopper._FORWARD, strict=True):
        given = {"q": tile(64), "k": tile(keys), "v": tile(keys), "out_ptr": "*bf16", "lse_ptr": "*fp32"}
        settings = {"N": keys, "STAGES": stages, "GROUPS": groups, "REGISTERS": registers}
        check(_dense_attention_fwd_kernel, {**given, **ENDS}, {**sizes, **settings})
        print(name)
