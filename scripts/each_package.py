"""Run a command once for each package, `{}` standing for its folder; stop at the first failure.

Usage: python scripts/each_package.py mypy {}/src
"""

import subprocess
import sys

from repo import ROOT, packages


def main() -> None:
    for name in packages():
        command = [word.replace("{}", f"packages/{name}") for word in sys.argv[1:]]
        print("$", *command, flush=True)
        if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise SystemExit(code)


if __name__ == "__main__":
    main()
