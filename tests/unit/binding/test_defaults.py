"""Defaults that a bound class states: those of groups, and those that cannot be written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from lahja_capn.binding import OPTIONAL, BaseEvent, Struct, bind
from lahja_capn.errors import BindError
from lahja_capn.schema import load

from .support import own_registry, received, schema


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    with own_registry():
        yield


GROUPS = """@0xb4d8f1a2c3e5f699;
enum Color { red @0; blue @1; }
struct Part { n @0 :Int8 = 5; }
struct A {
  g :group {
    x @0 :Int8; y @1 :Text = "hey"; l @2 :List(Int8) = [1, 2]; c @3 :Color = blue; f @4 :Float32 = nan;
    s @5 :List(Part) = [(n = 3)]; t @6 :List(Text); d @7 :Data = 0x"01 02"; p @8 :Part = (n = 7);
    h :group { z @9 :Bool = true; }
  }
  u :union { a @10 :Int8; b @11 :Text; }
}
"""


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("groups") / "groups.capnp"
    path.write_text(GROUPS)
    return load(path)


def test_a_class_for_a_group_may_state_the_schemas_defaults(groups: Any) -> None:
    @bind(groups.Part)
    class Part(Struct):
        n: int = 5

    @bind(groups.A.G.H)
    class H(Struct):
        z: bool = True

    @bind(groups.A.G)
    class G(Struct):
        x: int = 0
        y: str = "hey"
        l: Sequence[int] = (1, 2)  # noqa: E741
        c: str = "blue"
        f: float = float("nan")
        s: Sequence[Part] = (Part(n=3),)
        t: Sequence[str] = ()
        d: bytes = b"\1\2"
        p: Part = Part(n=7)
        h: H = OPTIONAL

    @bind(groups.A.U)
    class U(Struct):
        a: int = 0
        b: str = OPTIONAL

    @bind(groups.A)
    class A(BaseEvent):
        g: G = OPTIONAL
        u: U = OPTIONAL

    assert G(x=3).y == "hey"
    event = received(A(g=G(x=3), u=U(b="b")))
    assert (event.g.x, event.g.y, event.g.l, event.g.c, event.g.h.z) == (3, "hey", [1, 2], "blue", True)
    assert (event.u.which(), event.u.b) == ("b", "b")


@pytest.mark.parametrize(
    ("field", "value"),
    [("x", 1), ("y", "ho"), ("l", ()), ("c", "red"), ("f", 0.0), ("s", ()), ("t", ("a",)), ("d", b"")],
)
def test_a_default_that_is_not_the_groups_is_refused(groups: Any, field: str, value: Any) -> None:
    body = {"__annotations__": {field: Any}, field: value, "__module__": __name__}
    with pytest.raises(BindError, match=rf"the schema's default of groups\.capnp:A\.g\.{field} is"):
        bind(groups.A.G)(type("Wrong", (Struct,), body))


@pytest.mark.parametrize("field", ["inner", "place", "shape", "any", "word", "span"])
def test_none_as_the_default_of_a_struct_suggests_optional_alone(field: str) -> None:
    body = {"__annotations__": {field: Any}, field: None, "__module__": __name__}
    with pytest.raises(BindError, match=f"write {field} = OPTIONAL") as caught:
        bind(schema.Everything)(type("Wrong", (BaseEvent,), body))
    assert "Write the same" not in str(caught.value)
