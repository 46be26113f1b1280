"""The verbs of ./kit, a module each: `add` tells argparse, `run` calls what does the work, prints, gives the exit code."""

from kit.verbs import down, logs, parse, status, test, up

VERBS = (up, down, status, logs, parse, test)  # in the order of the help
