"""Run the examples in the docstrings of installed packages; a package may have none yet."""

import sys

import pytest

if __name__ == "__main__":
    code = pytest.main(["--doctest-modules", "--pyargs", *sys.argv[1:]])
    sys.exit(0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code)
