"""The commands and the Python code that READMEs show do what they say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*"))


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The `python` and `clickmask` commands of a README; `make test` itself is what runs this."""
    lines = "".join(fenced(text, "console")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line and line[0] in ("python", "clickmask")]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder that looks like the repository, where outputs may be written."""
    import cv2
    from skimage import data

    for name in ("examples", "export", "engines", "training"):
        (tmp_path / name).symlink_to(ROOT / name)
    cv2.imwrite(str(tmp_path / "photo.jpg"), data.astronaut()[..., ::-1])
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    python = [sys.executable] if command[0] == "python" else [sys.executable, "-m", "clickmask"]
    done = subprocess.run(
        [*python, *command[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_examples_commands_run_and_write_what_they_promise(example: Path, workplace: Path) -> None:
    text = (example / "README.md").read_text()
    for heading in ("## Introduction", "## Running the example"):
        assert heading in text
    listed = commands(text)
    assert listed
    for command in listed:
        run(command, workplace)
    for promised in re.findall(r"`(out/[^`]+\.\w+)`", text):
        assert (workplace / promised).is_file(), promised


def test_the_demo_finds_the_person(workplace: Path) -> None:
    printed = run(["python", "examples/01_segment_a_photo/segment.py"], workplace)
    found = re.search(r"IoU with the reference drawn by hand: ([\d.]+)", printed)
    assert found
    assert float(found.group(1)) > 0.9
    for stage in ("load the engine", "click 1", "click 4", "write the pictures"):
        assert re.search(rf"\d ms  {stage}", printed), stage


def readme_commands() -> list[list[str]]:
    text = (ROOT / "README.md").read_text()
    # Training takes hours and the benchmarks are not part of the project.
    return [line for line in commands(text) if "clickmask_training" not in line and "evaluate" not in line]


def test_the_readmes_commands_run_in_order(workplace: Path) -> None:
    for command in readme_commands():
        run(command, workplace)
    for picture in ("mask.png", "overlay.png", "out/demo/mask.png", "out/demo/overlay.png"):
        assert (workplace / picture).is_file(), picture


def test_make_demo_is_the_readmes_two_commands() -> None:
    recipe = (ROOT / "Makefile").read_text()
    for command in readme_commands()[:2]:
        assert " ".join(["$(VENV)/python", *command[1:]]) in recipe


def test_the_readmes_python_code_runs(workplace: Path) -> None:
    (code,) = fenced((ROOT / "README.md").read_text(), "python")
    (workplace / "readme.py").write_text(code)
    run(["python", "readme.py"], workplace)


@pytest.mark.parametrize("module", ["clickmask_training", "clickmask.evaluation.command"])
def test_commands_that_are_too_long_to_run_here_name_real_options(module: str) -> None:
    text = (ROOT / "README.md").read_text()
    kind = "clickmask_training" if module == "clickmask_training" else "evaluate"
    shown = {word for line in commands(text) if kind in line for word in line if word.startswith("--")}
    assert shown
    command = (
        ["-m", "clickmask_training"] if kind == "clickmask_training" else ["-m", "clickmask", "evaluate"]
    )
    offered = subprocess.run(
        [sys.executable, *command, "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in shown:
        assert option in offered


def make_targets(text: str) -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", text, flags=re.MULTILINE))


def test_make_targets_in_documents_exist() -> None:
    known = make_targets((ROOT / "Makefile").read_text())
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")):
        for block in fenced(document.read_text(), "console"):
            for target in re.findall(r"^make (\S+)", block, flags=re.MULTILINE):
                assert target in known, f"{document.name}: make {target}"


def test_links_in_documents_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")):
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
            if "://" not in link:
                assert (document.parent / link).exists(), f"{document.relative_to(ROOT)} links to {link}"
