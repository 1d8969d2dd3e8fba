"""Whether several devices learn what one learns."""

import math
from typing import Any

LOSS_TOLERANCE = {"gpu": 2**-10, "cpu": 1e-5}
"""How far a loss may be from that of one device, as a part of it. bfloat16 keeps 8 bits of a number, and a loss is a
mean over thousands of tokens, whose rounding errors mostly cancel: a quarter of the last bit. On a CPU in float32, the
order of sums."""
NORM_TOLERANCE = {"gpu": 0.05, "cpu": 1e-3}
"""The same of the gradient's norm: a sum where a mean should be, or a missing rank, is far outside."""
NOISE = 64
"""How many times further than one device is from itself. Of two such distances, drawn from the same normal
distribution, one is 64 times as large as the other in one of a hundred cases."""

Found = list[dict[str, Any]]


def check(found: Found, accelerator: str) -> list[str]:
    """What is wrong with the losses and gradient norms of several devices, beside one with the same global batch.

    Training magnifies what rounding differs. At steps at which one device is further from itself than the tolerance,
    when it takes the same sequences in halves, several are allowed `NOISE` times as much: it tells little.

    Args:
        found: of `run_case`; those of several devices get `apart`, how far a loss is from that of one device, as a
            part of it, by step, and `norms_apart`; and `noisy`, how far one device is from itself in either, at the
            steps at which that is further than the tolerance.
        accelerator: "gpu" or "cpu".

    Returns:
        A line for each problem.
    """
    problems = []
    alone, halves = of_one_device(found, micro_batches=1), of_one_device(found, micro_batches=2)
    for case in (case for case in found if case["strategy"] != "one"):
        name = f"{case['devices']} × {case['strategy']}"
        reference, again = (runs.get(case["global_batch"]) for runs in (alone, halves))
        if reference is None:
            problems.append(f"{name}: no run of one device with the same global batch to compare with")
            continue
        case["noisy"] = {}
        for what, into, tolerances in (
            ("losses", "apart", LOSS_TOLERANCE),
            ("grad_norms", "norms_apart", NORM_TOLERANCE),
        ):
            tolerance = tolerances[accelerator]
            away = distances(case[what], reference[what])
            noise = distances(again[what], reference[what]) if again else {}
            if not away:
                problems.append(f"{name}: no step whose {what} could be compared")
                continue
            if not all(map(math.isfinite, noise.values())):
                problems.append(f"one device with {case['global_batch']} sequences a step: {what} are not finite")
                continue
            case[into] = {str(step): distance for step, distance in away.items()}
            noisy = {str(step): noise[step] for step in away if noise.get(step, 0.0) > tolerance}
            if noisy:
                case["noisy"][what] = noisy
            allowed = {step: NOISE * noise[step] if str(step) in noisy else tolerance for step in away}
            worst = max(away, key=lambda step: away[step] / allowed[step])
            if away[worst] > allowed[worst]:
                problems.append(
                    f"{name}: {what} at step {worst} are {case[what][worst]:.6f}, and {reference[what][worst]:.6f} on "
                    f"one device; expected them within {allowed[worst]:.1e} of each other"
                )
    return problems


def of_one_device(found: Found, micro_batches: int) -> dict[int, dict[str, Any]]:
    """Runs of one device, by the global batch.

    Args:
        found: of `run_case`.
        micro_batches: in how many it took a device's sequences.
    """
    return {
        case["global_batch"]: case
        for case in found
        if case["strategy"] == "one" and case.get("micro_batches", 1) == micro_batches
    }


def distances(these: dict[int, float], those: dict[int, float]) -> dict[int, float]:
    """How far figures are from others, as a part of those, by step; infinitely if one is no finite number.

    Args:
        these: by step.
        those: likewise.
    """
    away = {step: abs(these[step] / those[step] - 1) for step in sorted(these.keys() & those.keys())}
    return {step: distance if math.isfinite(distance) else math.inf for step, distance in away.items()}
