"""uda COMMAND: what it lists, how it starts a command, and what it says to a typing error."""

import subprocess
import sys

import pytest

import uda
from shells import Trained
from tiny_runs import REPOSITORY
from uda.commands.main import main

COMMANDS = ("train", "eval", "label", "predict", "export", "convert", "train-translation",
            "translate", "runs", "report", "compare", "score")  # fmt: skip
DATA = ("check", "report", "describe", "get-ready", "toy-city", "prepare-vaihingen",
        "prepare-fashionpedia", "prepare-densepose")  # fmt: skip


def test_the_help_is_one_screen_with_an_example_for_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert main(["data", "--help"]) == 0
    data = capsys.readouterr().out
    for text, names, prog in ((shown, COMMANDS, "uda"), (data, DATA, "uda data")):
        lines = text.splitlines()
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 80
        assert all(f"  {prog} {name} " in text for name in names)


@pytest.mark.parametrize("command", [*((name,) for name in COMMANDS), *(("data", n) for n in DATA)])
def test_every_command_says_its_own_name(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    name = f"uda {' '.join(command)}"
    usage, _, rest = capsys.readouterr().out.partition("\n\n")
    assert usage.startswith(f"usage: {name} ")
    assert name in rest  # in an example


def test_the_help_imports_neither_torch_nor_a_command() -> None:
    program = (
        "import sys; from uda.commands.main import main; main(['--help']); "
        "print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert shown.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (["evla"], "there is no command 'evla'; did you mean \"eval\"? (uda --help)"),
        (["data", "chekc"], 'did you mean "check"? (uda data --help)'),
        (
            ["xyzzy"],
            "choose from train, eval, label, predict, adapt, export, convert, train-translation, "
            "translate, runs, report, compare, score, data",
        ),
        (["\x1b[2J"], r"'\x1b[2J'"),
    ],
)
def test_an_unknown_command_is_refused_with_the_nearest(
    given: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert hint in error
    assert error.count("\n") == 1


def test_nothing_given_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "uda train --preset" in capsys.readouterr().out


def test_a_refusal_ends_as_that_of_the_scripts(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["eval", "--restore-from", str(trained.snapshot), "--data-root", "nowhere"])
    assert end.value.code == 2
    assert "error: data root nowhere does not exist" in capsys.readouterr().err


def test_python_m_uda() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "uda", "--version"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown == f"uda {uda.__version__}\n"
