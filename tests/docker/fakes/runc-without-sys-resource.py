"""runc for a machine without CAP_SYS_RESOURCE: lowers what only that capability may raise, then runs the real runc.

Without it such a machine starts no container with a ulimit above its own, nor
any with `--privileged`. Nothing else of the container is changed.
"""

import json
import os
import resource
import sys
from pathlib import Path

words = sys.argv[1:]
if "create" in words or "run" in words:
    bundle = words[words.index("--bundle") + 1] if "--bundle" in words else "."
    path = Path(bundle) / "config.json"
    config = json.loads(path.read_text())
    process = config["process"]
    process["oomScoreAdj"] = max(process.get("oomScoreAdj", 0), 0)
    for limit in process.get("rlimits") or []:
        ours = resource.getrlimit(getattr(resource, limit["type"]))[1]
        if ours != resource.RLIM_INFINITY:
            limit["hard"] = min(limit["hard"], ours)
            limit["soft"] = min(limit["soft"], limit["hard"])
    for name, held in (process.get("capabilities") or {}).items():
        process["capabilities"][name] = [capability for capability in held if capability != "CAP_SYS_RESOURCE"]
    path.write_text(json.dumps(config))
real = Path(__file__).with_name("runc.real")
os.execv(real, ["runc", *words])
