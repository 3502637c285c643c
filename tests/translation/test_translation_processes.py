"""Two processes learn a translation, and write a data set, as one does."""

from pathlib import Path

import pytest
import torch
from translation_steps import steps_of

from processes import finished, torchrun
from tiny_runs import REPOSITORY
from uda.commands.translate import main as translate
from uda.translation.generators import GeneratorConfig


@pytest.mark.slow
def test_two_processes_are_one(toy_root: Path, tmp_path: Path) -> None:
    job = torchrun(
        "tests/translation/translation_steps.py", str(toy_root), str(tmp_path / "two.pt")
    )
    finished(job)
    two, one = torch.load(tmp_path / "two.pt"), steps_of(toy_root)
    assert two.keys() == one.keys()
    for name, value in one.items():
        # Means over ranks are float32, and Adam enlarges the rounding of biases that count for
        # nothing, those before a norm.
        torch.testing.assert_close(two[name].double(), value, rtol=1e-6, atol=1e-7)


def content(folder: Path) -> dict[str, bytes | Path]:
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.slow
def test_two_processes_write_the_files_of_one(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures, links and manifest, to the byte; two processes continue what one has begun."""
    torch.save(GeneratorConfig(blocks=1, width=16).build().state_dict(), tmp_path / "net.pth")
    common = ["--dataset", "gta5", "--data-root", str(toy_root), "--workers", "0",
              "--device", "cpu", "--output"]  # fmt: skip
    ways = {
        "network": ["--restore-from", str(tmp_path / "net.pth"), "--tile", "32"],
        "color": ["--method", "color", "--target", "cityscapes"],
    }
    jobs = []
    for name, way in ways.items():
        one, two = (tmp_path / number / name / "CycleGTA5" for number in ("one", "two"))
        translate([*way, *common, str(one)])
        two.parent.mkdir(parents=True)
        jobs.append(torchrun(str(REPOSITORY / "uda"), "translate", *way, *common, str(two)))
    said = capsys.readouterr().out
    outputs = [finished(job).replace("/two/", "/one/") for job in jobs]
    assert "".join(outputs) == said, "one process prints"
    ones, twos = (content(tmp_path / number) for number in ("one", "two"))
    assert len(ones) == 2 * (6 + 6 + 1)
    assert ones == twos
    for number in ("1", "2", "5"):
        (tmp_path / f"two/color/CycleGTA5/images/0000{number}.png").unlink()
    again = torchrun(str(REPOSITORY / "uda"), "translate", *ways["color"], *common,
                     str(tmp_path / "two/color/CycleGTA5"))  # fmt: skip
    assert "3 images were there already" in finished(again)
    assert content(tmp_path / "two") == twos
