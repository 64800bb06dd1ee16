"""Every command and every piece of Python in the README and the docs, as written, but small."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from processes import python

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [b for p in PAGES for b in re.findall(r"```(\w+)\n(.*?)```", p.read_text(), re.DOTALL)]
SHELL = [
    line
    for language, text in BLOCKS
    if language == "bash"
    for line in text.splitlines()
    if "python -m mirage" in line and "+sweep=" not in line  # test_main runs every sweep
]
INLINE = [c for p in PAGES for c in re.findall(r"`(python -m mirage[ .][^`]+)`", p.read_text())]
PYTHON = [text for language, text in BLOCKS if language == "python"]
# Blocks that are files of the user's, by the names in their first lines.
FILES = {m[1]: text for text in PYTHON if (m := re.match(r"# (\w+\.py)\n", text))}
SCRIPTS = [text for text in PYTHON if text not in FILES.values() and not text.startswith("# my_")]


# The same in every command, so that programs compiled for one serve others as well.
SIZES = {"d": ("20", "21", "22"), "alpha": ("4", "9", "15", "20")}


def small(command: str) -> list[str]:
    """The arguments of a command of the README with its sizes brought down."""
    words = shlex.split(command.split("python -m mirage", 1)[1], comments=True)
    shrunk = []
    for word in words:
        key, _, value = word.partition("=")
        if key in SIZES:
            sizes = ",".join(SIZES[key][: len(value.split(","))])
            word = f"{key}=[{sizes}]" if "[" in value else f"{key}={sizes}"
        elif key == "algorithm.steps":
            word = "algorithm.steps=2"
        elif key == "seeds":
            word = "seeds=2"
        if "-m" in words and key in SIZES:  # four jobs are as good as nine
            word = ",".join(word.split(",")[:2])
        shrunk.append(word)
    if "--help" in words or "--cfg" in words:
        return shrunk
    keys = {word.split("=")[0] for word in shrunk}
    defaults = {"d": "d=20", "seeds": "seeds=2", "algorithm.steps": "algorithm.steps=2"}
    if "+experiment=huber_vs_mse" in words and command != SHELL[0]:  # once with its theory
        defaults["theory"] = "theory=null"
    return shrunk + [word for key, word in defaults.items() if key not in keys]


def module_and_arguments(command: str) -> tuple[str, list[str]]:
    """What is run, with sizes brought down where there are any."""
    module, rest = re.search(r"python -m (mirage[.\w]*)(.*)", command).groups()
    if module == "mirage":
        return module, small(command)
    return module, shlex.split(rest, comments=True)


def blocks_that_define_files(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).write_text(text)


# The first command, and those that run nothing; the others take a minute or two together.
COMMANDS = [
    command if place == 0 or "--" in command else pytest.param(command, marks=pytest.mark.slow)
    for place, command in enumerate(dict.fromkeys([*SHELL, *INLINE]))
]


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """The folder of a run."""
    place = tmp_path_factory.mktemp("docs")
    first = small("python -m mirage +experiment=huber_vs_mse alpha=[3,6] hydra.run.dir=DIR")
    made = python("mirage", *first, cwd=place)
    assert made.returncode == 0, made.stderr
    return place / "DIR"


@pytest.mark.parametrize("command", COMMANDS)
def test_shell_commands_run(command, tmp_path, request):
    blocks_that_define_files(tmp_path)
    module, words = module_and_arguments(command)
    if any("DIR" in word for word in words):  # of a run that is there
        shutil.copytree(request.getfixturevalue("a_run"), tmp_path / "DIR")
    if command == SHELL[0]:  # as users run it
        run = [sys.executable, "-m", module, *words]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    else:
        done = python(module, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if "--" not in command and module == "mirage":
        assert list((tmp_path / "outputs").rglob("results.nc"))


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("text", SCRIPTS, ids=range(len(SCRIPTS)))
def test_python_runs(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    smaller = re.sub(r"d=\[100(, 200)?\]", "d=[20]", text)
    exec(compile(smaller, "docs", "exec"), {"__name__": "readme"})
    if "savefig" in text:
        assert {"recovery.png", "my_run"} <= set(os.listdir(tmp_path))


# It takes hours on two cores.
WITHOUT_FIGURE = {"depth_advantage_accelerator"}


@pytest.mark.parametrize("name", [f.stem for f in sorted((ROOT / "conf/experiment").iterdir())])
def test_the_page_of_an_experiment_says_what_to_expect_beside_its_figure(name):
    expected = OmegaConf.load(ROOT / "docs/site/expected.yaml")
    assert len(expected[name]) > 20
    figure = ROOT / "docs" / f"{name}.png"
    assert figure.exists() != (name in WITHOUT_FIGURE)


def test_the_two_commands_of_the_readme_are_the_ones_promised():
    shell = [text for language, text in BLOCKS if language == "bash"]
    assert shell[0].strip() == "pip install . && python -m mirage +experiment=huber_vs_mse"
    assert shell[1].strip() == 'pip install ".[test]" && pytest'
