"""Fresh virtual environments, in which a plugin meets only what a user would have."""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Environment", "run"]


@dataclass(frozen=True)
class Environment:
    """A virtual environment without pip; the pip that runs the tests installs into it.

    Example:
        ```python
        environment = Environment.create(tmp_path / "venv")
        environment.install("prune-core", wheel)
        assert environment.python("import prune_core; print(len(prune_core.plugins()))") == "2"
        ```
    """

    path: Path

    @classmethod
    def create(cls, path: Path) -> "Environment":
        """Make an empty environment in a folder that does not exist yet."""
        venv.create(path, with_pip=False, symlinks=os.name != "nt")
        return cls(path)

    @property
    def executable(self) -> Path:
        """The environment's interpreter."""
        return self.path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def borrow_packages(self) -> None:
        """Let the environment fall back on the packages that run the tests.

        For what is too large to be installed again, such as torch. What is installed into the
        environment itself comes first.
        """
        own = sysconfig.get_path("purelib", vars={"base": str(self.path)})
        borrowed = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        # Not plain paths: what is installed editable there is found through .pth files.
        lines = [f"import site; site.addsitedir({folder!r})" for folder in borrowed]
        Path(own, "borrowed.pth").write_text("\n".join(lines), encoding="utf-8")

    def install(self, *arguments: str | Path) -> None:
        """Run `pip install` for this environment."""
        pip = (sys.executable, "-m", "pip", "--python", self.executable)
        run(*pip, "install", "--quiet", "--no-compile", *arguments)

    def run(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> "subprocess.CompletedProcess[str]":
        """Run the interpreter, with nothing of the caller's Python or prune settings.

        Args:
            arguments: What follows `python` on its command line.
            cwd: Where to run it.
            env: Environment variables to set.
            check: Whether a failure raises, with what was printed.
        """
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "PRUNE_", "COVERAGE", "VIRTUAL_ENV"))
        }
        command = (self.executable, *arguments)
        return run(*command, cwd=cwd, env={**inherited, **(env or {})}, check=check)

    def python(self, code: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run a piece of Python and return what it printed, without the line end."""
        return self.run("-c", code, *arguments, env=env).stdout.strip()


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> "subprocess.CompletedProcess[str]":
    """Run a command and keep what it prints; a failure shows that, not only an exit code."""
    line = [str(part) for part in command]
    process = subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if check and process.returncode:
        printed = "\n".join(filter(None, (process.stdout.strip(), process.stderr.strip())))
        raise RuntimeError(f"{' '.join(line)} ended with {process.returncode}:\n{printed}")
    return process
