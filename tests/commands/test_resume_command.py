"""What a stopped run says to type: the program that was started, however it was started."""

import pytest

from uda.commands.train import resume_command

OPTIONS = ["--preset", "toy_aagc", "--set", "data.root=a b"]
SPELLED = "--preset toy_aagc --set 'data.root=a b' --resume"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("program", "start"),
    [
        (["train_uda.py"], "python train_uda.py"),
        (["a folder/train_uda.py"], "python 'a folder/train_uda.py'"),
        (["/usr/local/bin/uda", "train"], "uda train"),
        (["/lib/python3/site-packages/uda/__main__.py", "train"], "python -m uda train"),
    ],
)
def test_how_to_resume_is_the_command_that_was_given(program: list[str], start: str) -> None:
    expected = f"{start} {SPELLED}"
    assert resume_command([*program, *OPTIONS]) == expected
    assert resume_command([*program, *OPTIONS, "--resume"]) == expected
    assert resume_command([*program, *OPTIONS, "--resume=x/resume.pth"]) == expected
    assert resume_command([*program, *OPTIONS[:2], "--resume", *OPTIONS[2:]]) == expected
    with_path = [*program, *OPTIONS[:2], "--resume", "x/resume.pth", *OPTIONS[2:]]
    assert resume_command(with_path) == expected


@pytest.mark.parametrize(
    ("world", "program", "start"),
    [
        ("4", ["train_uda.py"], "torchrun --nproc-per-node 4 -- train_uda.py"),
        ("8", ["train_uda.py"], "torchrun (on 8 processes, as before) -- train_uda.py"),
        ("4", ["/usr/local/bin/uda", "train"], "torchrun --nproc-per-node 4 -m uda train"),
        ("4", ["/lib/uda/__main__.py", "train"], "torchrun --nproc-per-node 4 -m uda train"),
    ],
)
def test_several_processes_are_resumed_as_several(
    world: str, program: list[str], start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", world)
    assert resume_command([*program, *OPTIONS]) == f"{start} {SPELLED}"
