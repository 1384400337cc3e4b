"""Build what would be uploaded, look into it, and install each package by itself.

Usage: python scripts/check_dist.py some/directory
"""

import argparse
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

from repo import ROOT, package_dir, packages, siblings_of, version


def build(package: str, directory: Path) -> tuple[Path, Path]:
    """Build the source distribution, and the wheel from it; return their paths."""
    stem = f"{package.replace('-', '_')}-{version(package)}"
    _run("uv", "build", "--quiet", package_dir(package), "--out-dir", directory)
    return directory / f"{stem}.tar.gz", directory / f"{stem}-py3-none-any.whl"


def faults_of_sdist(package: str, sdist: Path) -> list[str]:
    """Return what is wrong with the contents of a source distribution."""
    with tarfile.open(sdist) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"}
    faults = [f"{sdist.name} lacks {name}" for name in sorted(wanted - names)]
    if not any(name.startswith("tests/") for name in names):
        faults.append(f"{sdist.name} lacks the tests")
    if any(name.startswith("changelog.d") for name in names):
        faults.append(f"{sdist.name} holds changelog.d/, which is not for users")
    return faults


def faults_of_wheel(package: str, wheel: Path) -> list[str]:
    """Return what is wrong with the contents of a wheel."""
    module = package.replace("-", "_")
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())
    source = package_dir(package) / "src"
    wanted = {
        str(path.relative_to(source))
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"{module}-{version(package)}.dist-info"
    wanted |= {f"{module}/py.typed", f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"}
    faults = [f"{wheel.name} lacks {name}" for name in sorted(wanted - names)]
    strangers = sorted(name for name in names if not name.startswith((f"{module}/", f"{info}/")))
    return faults + [f"{wheel.name} holds {name}" for name in strangers]


def install_alone(package: str, wheels: list[Path], directory: Path) -> None:
    """Install a wheel, and nothing that it does not ask for, and load it there as a plugin.

    Args:
        package: The distribution.
        wheels: Its wheel, and those of its siblings that it requires.
        directory: Where the environment is made.
    """
    environment = directory / f"env-{package}"
    _run("uv", "venv", "--quiet", "--clear", environment)
    _run(
        *("uv", "pip", "install", "--quiet", "--python", environment),
        *("--constraint", ROOT / "constraints.txt"),
        *wheels,
    )
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    # A package that needs no core, such as prune-verify, is a plugin only beside one.
    look = (
        "from importlib.util import find_spec\n"
        f"import {package.replace('-', '_')}\n"
        "if find_spec('prune_core'):\n"
        "    import prune_core\n"
        f"    [mine] = [p for p in prune_core.plugins() if p.distribution == {package!r}]\n"
        "    assert mine.error is None, mine.error\n"
        f"print({package!r}, 'installs alone')\n"
    )
    # -I, and from elsewhere: what is imported can only be what was installed
    _run(python, "-I", "-W", "error", "-c", look, cwd=directory)
    shutil.rmtree(environment)


def _run(*command: str | Path, cwd: Path = ROOT) -> None:
    try:
        subprocess.run([str(word) for word in command], cwd=cwd, check=True)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{' '.join(error.cmd)} failed.") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory.resolve() / "dist"
    shutil.rmtree(directory, ignore_errors=True)
    built = {package: build(package, directory) for package in packages()}
    faults = [
        fault
        for package, (sdist, wheel) in built.items()
        for fault in [*faults_of_sdist(package, sdist), *faults_of_wheel(package, wheel)]
    ]
    if faults:
        raise SystemExit("\n".join(faults))
    _run("twine", "check", "--strict", *(path for pair in built.values() for path in pair))
    for package in built:
        needed = [built[each][1] for each in (package, *siblings_of(package))]
        install_alone(package, needed, directory)


if __name__ == "__main__":
    main()
