"""Whether several devices learn what one learns."""

import math
from typing import Any

LOSS_TOLERANCE = {"gpu": 2**-10, "cpu": 1e-5}
"""How far a loss may be from that of one device, as a part of it. bfloat16 keeps 8 bits of a number, and a loss is a
mean over thousands of tokens, whose rounding errors mostly cancel: a quarter of the last bit. On a CPU in float32, the
order of sums."""
NORM_TOLERANCE = {"gpu": 0.05, "cpu": 1e-3}
"""The same of the gradient's norm: a sum where a mean should be, or a missing rank, is far outside."""
Found = list[dict[str, Any]]


def check(found: Found, accelerator: str) -> list[str]:
    """What is wrong with the losses and gradient norms of several devices, beside one with the same global batch.

    Training magnifies what rounding differs. Steps say nothing at which one device is as far from itself, when it takes
    the same sequences in halves; they are left out.

    Args:
        found: of `run_case`; those of several devices get `compared`, how far a loss is from that of one device, as a
            part of it, by step; and `noisy`, how far one device is from itself at the steps left out.
        accelerator: "gpu" or "cpu".
    """
    problems = []
    alone, halves = of_one_device(found, parts=1), of_one_device(found, parts=2)
    for case in (case for case in found if case["strategy"] != "one"):
        name = f"{case['devices']} × {case['strategy']}"
        reference, again = (runs.get(case["global_batch"]) for runs in (alone, halves))
        if reference is None:
            problems.append(f"{name}: no run of one device with the same global batch to compare with")
            continue
        for what, tolerances in (("losses", LOSS_TOLERANCE), ("grad_norms", NORM_TOLERANCE)):
            tolerance = tolerances[accelerator]
            noise = apart(again[what], reference[what]) if again else {}
            away = apart(case[what], reference[what])
            told = {step: distance for step, distance in away.items() if noise.get(step, 0.0) <= tolerance}
            if not told:
                problems.append(f"{name}: no step whose {what} could be compared")
                continue
            if what == "losses":
                case["compared"] = {str(step): distance for step, distance in told.items()}
                case["noisy"] = {str(step): noise[step] for step in away if step not in told}
            worst = max(told, key=told.__getitem__)
            if told[worst] > tolerance:
                problems.append(
                    f"{name}: {what} at step {worst} are {case[what][worst]:.6f}, and {reference[what][worst]:.6f} on "
                    f"one device; expected them within {tolerance:.1e} of each other"
                )
    return problems


def of_one_device(found: Found, parts: int) -> dict[int, dict[str, Any]]:
    """Runs of one device, by the global batch.

    Args:
        found: of `run_case`.
        parts: in which it took its sequences.
    """
    return {case["global_batch"]: case for case in found if case["strategy"] == "one" and case.get("parts", 1) == parts}


def apart(these: dict[int, float], those: dict[int, float]) -> dict[int, float]:
    """How far figures are from others, as a part of those, by step; infinitely if one is no number.

    Args:
        these: by step.
        those: likewise.
    """
    away = {step: abs(these[step] / those[step] - 1) for step in sorted(these.keys() & those.keys())}
    return {step: math.inf if math.isnan(distance) else distance for step, distance in away.items()}
