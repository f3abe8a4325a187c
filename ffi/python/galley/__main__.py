"""``python -m galley``: the program ``galley``, which the package holds."""

import os
import sys

from ._library import TREE


def main() -> None:
    """Becomes the program, with this process's arguments."""
    program = os.path.join(TREE, "bin", "galley")
    os.execv(program, ["galley", *sys.argv[1:]])


if __name__ == "__main__":
    main()
