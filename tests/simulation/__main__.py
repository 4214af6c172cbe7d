"""`python -m tests.simulation --seed N --days 365`: run one, print what happened; exit 1 when a guarantee broke."""

import argparse
import sys

from tests.simulation.checks import Broken
from tests.simulation.run import simulate


def main() -> int:
    """Run the seeds from --seed on."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --seed on")
    parser.add_argument("--days", type=int, default=365)
    asked = parser.parse_args()
    for seed in range(asked.seed, asked.seed + asked.seeds):
        try:
            result = simulate(seed, asked.days)
        except Broken as broken:
            print(f"BROKEN with --seed {seed} --days {asked.days}: {broken}")
            return 1
        for what, count in sorted(result.events.items()):
            print(f"{count:>12,} {what}")
        drained = f"drained in {result.drained_days} days"
        print(f"seed {seed}: {result.days} days, {drained}, digest {result.digest}, {result.seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
