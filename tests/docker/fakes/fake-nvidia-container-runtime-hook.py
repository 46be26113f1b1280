"""FAKE of NVIDIA's container hook, for tests on machines without a GPU. It gives a container no GPU.

An engine accepts `driver: nvidia` reservations when it finds a program of this
name, and calls it for each such container. This one only records the ids asked for.
"""

import json
import sys
from pathlib import Path

work = Path(__file__).parent.parent
state = json.load(sys.stdin)
environment = json.loads((Path(state["bundle"]) / "config.json").read_text())["process"]["env"]
devices = next((entry.partition("=")[2] for entry in environment if entry.startswith("NVIDIA_VISIBLE_DEVICES=")), None)
with (work / "gpus.jsonl").open("a") as log:
    log.write(json.dumps({"container": state["id"], "visible_devices": devices}) + "\n")
failure = work / "gpu-failure"
if failure.exists():
    sys.exit(failure.read_text())
