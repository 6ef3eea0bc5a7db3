"""What the house tests look at: the repository, its rooms, and every Python file as a tree."""

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "opendalle"


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def package_files() -> tuple[Path, ...]:
    return tuple(sorted(PACKAGE.rglob("*.py")))


class House:
    root = ROOT
    package = PACKAGE
    tree = staticmethod(tree)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every Python file of the package."""
        return package_files()

    @property
    def rooms(self) -> list[str]:
        return sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))

    def name(self, path: Path) -> str:
        return path.relative_to(ROOT).as_posix()

    def python(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a fresh Python that sees the package and nothing of this process."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
        environment["PYTHONPATH"] = str(PACKAGE.parent)
        ran = subprocess.run(
            [sys.executable, "-B", *arguments], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=100
        )
        if check and ran.returncode:
            pytest.fail(ran.stderr or ran.stdout)
        return ran

    def tool(self, *arguments: str) -> None:
        """Run one of the checking tools that lie beside this Python; what it prints is the failure."""
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
        program = Path(sys.executable).with_name(arguments[0])
        ran = subprocess.run(
            [program, *arguments[1:]], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=100
        )
        if ran.returncode:
            pytest.fail(f"{' '.join(arguments)}\n{ran.stdout}{ran.stderr}", pytrace=False)


@pytest.fixture(scope="session")
def house() -> House:
    return House()
