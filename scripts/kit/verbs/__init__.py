"""The verbs of ./kit, a module each: `add` tells argparse, `run` calls what does the work, prints, gives the exit code."""

from kit.verbs import configure, diagnose, doctor, down, health, lint, logs, parse, status, test, up

VERBS = (doctor, configure, lint, up, down, status, health, logs, diagnose, parse, test)  # in the order of the help
