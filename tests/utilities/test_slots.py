"""Dataclasses with slots whose methods call `super()`."""

from dataclasses import dataclass

import pytest

from uda.models.config import ModelConfig
from uda.models.decoders.base import DecoderConfig
from uda.objectives.base import ObjectiveConfig
from uda.utilities.slots import rebind_super


@dataclass(slots=True)
class Base:
    found: str = ""

    def __init_subclass__(cls) -> None:
        rebind_super(cls)

    def check(self) -> str:
        return f"base {self.found}"

    @property
    def size(self) -> int:
        return 1

    @classmethod
    def name(cls) -> str:
        return "base"


@dataclass(slots=True)
class Child(Base):
    def check(self) -> str:
        return f"child, {super().check()}"

    @property
    def size(self) -> int:
        return 1 + super().size

    @classmethod
    def name(cls) -> str:
        return f"child, {super().name()}"


@dataclass(slots=True)
class Grandchild(Child):
    def check(self) -> str:
        return f"grandchild, {super().check()}"


class Plain(Child):
    def check(self) -> str:
        return f"plain, {super().check()}"


def test_super_works_in_methods_properties_and_class_methods() -> None:
    assert Child(found="x").check() == "child, base x"
    assert Child().size == 2
    assert Child.name() == "child, base"


def test_super_works_over_several_levels() -> None:
    assert Grandchild(found="x").check() == "grandchild, child, base x"
    assert Plain(found="x").check() == "plain, child, base x"
    assert Child(found="y").check() == "child, base y"


@pytest.mark.parametrize("base", [ObjectiveConfig, ModelConfig, DecoderConfig])
def test_users_classes_may_call_super(base: type) -> None:
    @dataclass(kw_only=True, slots=True)
    class Config(base):  # type: ignore[misc]
        def check(self, path: object) -> object:
            return super().check

    config = object.__new__(Config)
    assert config.check("x").__func__ is base.check  # type: ignore[attr-defined]
