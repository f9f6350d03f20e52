"""Starts one kernel on trial, so that it learns what later ones remember; `lab setup` calls it.

The kernel is led to the memory that it fills by a variable (`LAB_MEMORY`, crates/kernel/src/memory.rs). Two mistakes are
made on purpose: one that the compiler finds, and one at which the type of a variable cannot be found out, so that the kernel checks the cell.
"""

import argparse
import sys
from pathlib import Path

from kernel import CannotRun, DidNotStart, Kernel

LIMIT = 300  # seconds for one cell
MISTAKES = ('let trial: i32 = "ten";', "let trial = nobody_has_this_name;")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--notebooks", type=Path, required=True)
    arguments.add_argument("--dependency", required=True, help="the support crate's folder as the notebooks name it")
    arguments.add_argument("--log", type=Path, required=True)
    given = arguments.parse_args()
    try:
        with Kernel(given.notebooks, given.log) as kernel:
            first = f':dep diffusion = {{ path = "{given.dependency}" }}\nuse diffusion::prelude::*;'
            for cell in (first, "1 + 1", *MISTAKES):
                result = kernel.run(cell, LIMIT)
                if result.ended != "idle" or (result.status == "ok") == (cell in MISTAKES):
                    sys.exit(f"the kernel on trial did not run `{cell}` as expected ({result.ended}, {result.status})")
    except (CannotRun, DidNotStart) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
