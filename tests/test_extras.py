"""What is not installed is named in one line, with the command that brings it."""

import sys

import pytest

from uda.errors import InputError
from uda.extras import require_extra


@pytest.mark.parametrize(
    ("extra", "package"),
    [
        ("timm", "timm"),
        ("smp", "segmentation_models_pytorch"),
        ("transformers", "transformers"),
    ],
)
def test_a_missing_extra_is_one_line(
    extra: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError) as refusal:
        require_extra(extra, needed_by="this network")  # type: ignore[arg-type]
    assert str(refusal.value) == (
        f"this network needs the package {package}, which is not installed: pip install "
        f"'uda[{extra}]', or pip install --editable '.[{extra}]' in a checkout"
    )


def test_an_extra_that_is_there_is_imported() -> None:
    timm = pytest.importorskip("timm")
    assert require_extra("timm", needed_by="a backbone") is timm
