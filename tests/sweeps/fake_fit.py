"""In the place of `cli.py fit`: tells the worker of steps, reports, and ends as it is told to, without PyTorch."""

import fcntl
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path


def main(folder, behaviour):
    with open(folder / "started", "a") as started:
        started.write("x")
    begun = folder.parent.glob(f"{folder.name}*/started")  # those of runs that were set aside among them
    attempt = sum(len(path.read_text()) for path in begun)
    behaviour = behaviour.get(str(attempt), behaviour.get("each", behaviour))
    lock = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT)  # until the end
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    trial = json.loads(os.environ["LIT_T6_TRIAL"])
    channel = socket.socket(fileno=trial["descriptor"])
    steps, pruned = behaviour.get("steps", 2), False
    for step in range(1, steps + 1):
        message = {"step": step, "of": steps, "time": time.time()}
        channel.sendall(json.dumps(message).encode() + b"\n")
        for value in behaviour.get("reports", [])[step - 1 : step]:
            channel.sendall(json.dumps({"report": step, "value": value, "step": step, "of": steps}).encode() + b"\n")
            if trial["prunes"] and b"prune" in channel.recv(100) and step < steps:
                steps, pruned = step, True
                break
        else:
            time.sleep(behaviour.get("seconds", 0.0))
            continue
        break
    if "says" in behaviour:
        print(behaviour["says"], flush=True)
    if behaviour.get("hangs"):
        signal.signal(signal.SIGTERM, lambda number, frame: (print(behaviour.get("saves", "")), sys.exit(75)))
        time.sleep(600)
    if "signal" in behaviour:
        os.kill(os.getpid(), behaviour["signal"])
    metrics = {"val/bits_per_byte": behaviour.get("value", 1.0), "val/loss": 2.0, "train/loss": 2.0}
    content = {"step": steps, "tokens": 10, "ended": True, "metrics": metrics, "facts": {"num_parameters": 7}}
    content |= {"run": trial["run"], "not_saved": behaviour.get("not_saved", [])}
    if behaviour.get("status", 0) == 0 or behaviour.get("finishes"):
        (folder / "metrics.json").write_text(json.dumps(content))
        if not pruned:
            (folder / "finished").write_text("")
    sys.exit(behaviour.get("status", 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
