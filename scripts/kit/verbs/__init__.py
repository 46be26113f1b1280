"""The verbs of ./kit, a module each: `add` tells argparse, `run` calls what does the work, prints, gives the exit code."""

# In the order of the help.
VERBS = (
    *("doctor", "configure", "lint", "up", "down", "status", "health", "logs", "diagnose", "parse", "view"),
    *("export", "verify", "load", "bench", "test"),
)
