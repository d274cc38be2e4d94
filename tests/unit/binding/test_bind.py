"""@bind: what it checks when a class is made."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import pytest

import capnp
from lahja_capn.binding import (
    OPTIONAL,
    AnyPointer,
    BaseEvent,
    BaseRequestResponseEvent,
    DataView,
    Enumerant,
    Struct,
    bind,
    event_type,
    find_event_type,
)
from lahja_capn.errors import BindError

from .support import SCHEMAS, Answer, Ask, Everything, Inner, Small, own_registry, received, schema


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    with own_registry():
        from lahja_capn.binding import registry

        registry._events.clear()
        registry._classes.clear()
        # Nested structs are annotated by the class of the support module.
        registry._classes[Inner._plan.type_id] = Inner
        yield


def test_all_kinds_of_fields_can_be_annotated() -> None:
    @bind(schema.Everything)
    class Everything(BaseEvent):
        void: None = None
        bool: bool = False
        int8: int = 0
        float32: float = 0.0
        text: str = ""
        data: bytes = b""
        color: Literal["red", "green", "blue"] = "red"
        inner: Inner = OPTIONAL
        voids: Sequence[None] = ()
        texts: Sequence[str] = ()
        datas: Sequence[bytes] = ()
        colors: Sequence[str] = ()
        inners: Sequence[Inner] = ()
        numberLists: Sequence[Sequence[int]] = ()
        innerLists: Sequence[Sequence[Struct]] = ()
        place: Struct = OPTIONAL
        count: int = 0
        part: Inner = OPTIONAL
        any: AnyPointer = OPTIONAL
        anyList: Any = OPTIONAL
        textBox: Struct = OPTIONAL
        boolDefault: "builtins_bool" = True  # noqa: UP037
        intDefault: int = -12
        floatDefault: float = 1.5
        textDefault: str = "default"
        dataDefault: bytes = b"\1\2\3"
        colorDefault: Enumerant = Enumerant("blue", 2)
        listDefault: Sequence[int] = (1, 2, 3)
        anything: ClassVar[int] = 5

    assert received(Everything(int8=1)).int8 == 1
    assert Everything.anything == 5


builtins_bool = bool

MISMATCHES: list[tuple[str, Any, str]] = [
    ("int8", str, "annotate it int"),
    ("int8", float, "annotate it int"),
    ("float64", int, "annotate it float"),
    ("bool", int, "annotate it bool"),
    ("void", int, "annotate it None"),
    ("text", bytes, "annotate it str"),
    ("data", str, "annotate it bytes, or DataView"),
    ("data", memoryview, "annotate it bytes, or DataView"),
    ("color", int, "annotate it str, Enumerant, or a Literal of all its names"),
    ("color", Literal["red", "green"], "(all the schema's names), or str"),
    ("color", Literal["red", "green", "blue", "violet"], "(all the schema's names), or str"),
    ("inner", dict, "annotate it a class bound to Inner"),
    ("inner", Small, "annotate it a class bound to Inner"),
    ("inner", "Inner | None", "give it the default OPTIONAL"),
    ("any", bytes, "annotate it AnyPointer"),
    ("texts", list[str], "annotate it Sequence[str] (a field is immutable, so list does not describe it)"),
    ("texts", list, "(a field is immutable, so list does not describe it)"),
    ("texts", Sequence[int], "annotate it Sequence[str]"),
    ("texts", str, "annotate it Sequence[str]"),
    ("numberLists", Sequence[int], "annotate it Sequence[Sequence[int]]"),
]


@pytest.mark.parametrize(("field", "annotation", "message"), MISMATCHES, ids=str)
def test_an_annotation_that_does_not_fit_is_refused(field: str, annotation: Any, message: str) -> None:
    cls = type("Wrong", (BaseEvent,), {"__annotations__": {field: annotation}, "__module__": __name__})
    with pytest.raises(BindError) as caught:
        bind(schema.Everything)(cls)
    assert message in str(caught.value)
    assert f"Wrong.{field} is annotated " in str(caught.value)
    assert caught.value.field == field
    assert find_event_type(schema.Everything.schema.node.id) is None


def test_an_annotation_without_a_field_names_close_ones() -> None:
    with pytest.raises(
        BindError, match=r"Small\.valu: everything\.capnp:Small has no such field; did you mean value"
    ):

        @bind(schema.Small)
        class Small(BaseEvent):
            valu: float

    with pytest.raises(BindError, match=r"it has number\. An"):

        @bind(schema.Single)
        class Single(BaseEvent):
            zzzzz: int


@pytest.mark.parametrize(
    ("field", "annotation", "value"),
    [
        ("intDefault", int, 0),
        ("text", str, "x"),
        ("int8", int, 1000),
        ("int8", int, "0"),
        ("listDefault", Sequence[int], ()),
    ],
)
def test_a_default_that_is_not_the_schemas_is_refused(field: str, annotation: Any, value: Any) -> None:
    body = {"__annotations__": {field: annotation}, field: value, "__module__": __name__}
    with pytest.raises(BindError, match=r"the schema's default of everything\.capnp:Everything"):
        bind(schema.Everything)(type("Wrong", (BaseEvent,), body))


def test_an_annotation_that_cannot_be_resolved_is_explained() -> None:
    with pytest.raises(BindError, match="must be defined"):

        @bind(schema.Everything)
        class Wrong(BaseEvent):
            inner: NotDefinedAnywhere  # type: ignore[name-defined] # noqa: F821


def test_annotations_may_name_classes_of_the_function_that_makes_the_class() -> None:
    @bind(schema.Blob.Part)
    class Piece(Struct):
        name: str

    @bind(schema.Blob)
    class Local(BaseEvent):
        parts: Sequence[Piece] = ()

    assert type(received(Local(parts=[Piece(name="x")])).parts[0]) is Piece


def test_annotations_of_an_unbound_base_class_count() -> None:
    class Base(BaseEvent):
        id: int

    class Wrong(BaseEvent):
        id: str

    @bind(schema.Small)
    class Right(Base):
        value: float

    assert received(Right(id=3, value=1.0)).id == 3
    with pytest.raises(BindError, match="annotate it int"):

        @bind(schema.Small)
        class AlsoWrong(Wrong):
            pass


def test_a_method_with_the_name_of_a_field_is_refused() -> None:
    with pytest.raises(BindError, match=r"@bind\(\.\.\., rename=\{\"text\": \"text_\"\}\)"):

        @bind(schema.Small)
        class Wrong(BaseEvent):
            def text(self) -> str:
                return ""

    with pytest.raises(BindError, match="is a method or attribute of the class and a field"):

        @bind(schema.Small)
        class AlsoWrong(BaseEvent):
            id = 0


def test_a_field_with_the_name_of_our_method_is_refused_and_can_be_renamed() -> None:
    with pytest.raises(BindError, match=r"the field 'bind' .* rename=\{\"bind\": \"bind_\"\}"):

        @bind(schema.Awkward)
        class Wrong(BaseEvent):
            pass

    @bind(schema.Awkward, rename={"bind": "bind_", "which": "kind", "from": "from_"})
    class Awkward(BaseEvent):
        bind_: int = 0
        kind: str = ""
        from_: int = 0

    event = Awkward(bind_=1, kind="k", from_=2, inner={"which_": "w"})  # type: ignore[call-arg]
    assert event == received(event)
    assert (received(event).bind_, received(event).kind, received(event).from_) == (1, "k", 2)
    assert received(event).inner.which_ == "w"  # type: ignore[attr-defined]
    assert repr(event) == "Awkward(bind_=1, kind='k', from_=2, inner=Inner(which_='w'))"
    with pytest.raises(TypeError, match="has no unnamed union"):
        event.which()


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"nope": "x"}, "which everything.capnp:Small does not have"),
        ({"text": "not valid"}, "must be an identifier"),
        ({"text": "_private"}, "must be an identifier"),
        ({"text": "data"}, "both get the name 'data'"),
        ({"text": "get_origin"}, "has the name of a method"),
    ],
)
def test_a_rename_that_cannot_work_is_refused(rename: dict[str, str], message: str) -> None:
    with pytest.raises(BindError, match=message):

        @bind(schema.Small, rename=rename)
        class Wrong(BaseEvent):
            pass


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (schema.Color, "an enum is no Cap'n Proto struct"),
        (schema.Service, "an interface is no Cap'n Proto struct"),
        (schema, "no Cap'n Proto struct"),
        (5, "int 5 is no Cap'n Proto struct"),
        (schema.GenericEvent, "is generic"),
        (schema.WithInterface, r"Wrong\.deep\.service has the type interface"),
        (schema.WithCapability, r"Wrong\.capability has the type Capability"),
        (schema.Everything.Place, "is a group"),
    ],
)
def test_what_is_no_struct_for_events_is_refused(target: Any, message: str) -> None:
    with pytest.raises(BindError, match=message):

        @bind(target)
        class Wrong(BaseEvent):
            pass


def test_bind_needs_a_struct_or_a_type_id() -> None:
    with pytest.raises(BindError, match="takes a struct"):
        bind()
    with pytest.raises(BindError, match="takes a struct"):
        bind(schema.Small, type_id=2**63)


@pytest.mark.parametrize("target", [int, lambda: None, type("Plain", (), {})])
def test_bind_goes_on_event_and_struct_classes_only(target: Any) -> None:
    with pytest.raises(BindError, match="inherits from BaseEvent"):
        bind(schema.Small)(target)


def test_one_class_per_struct() -> None:
    @bind(schema.Small)
    class One(BaseEvent):
        pass

    with pytest.raises(BindError, match=r"is bound to .*One already"):

        @bind(schema.Small)
        class Two(BaseEvent):
            pass

    with pytest.raises(BindError, match=r"is bound to .*One already"):

        @bind(schema.Small)
        class Three(Struct):
            pass

    assert event_type(One).event_class is One


def test_binding_again_under_the_same_name_replaces() -> None:
    def make() -> type[BaseEvent]:
        @bind(schema.Small)
        class Again(BaseEvent):
            pass

        return Again

    first, second = make(), make()
    assert first is not second
    found = find_event_type(schema.Small.schema.node.id)
    assert found is not None
    assert found.event_class is second


def test_a_subclass_is_not_bound() -> None:
    class Derived(Ask):
        pass

    for use in (
        lambda: Derived(question=""),
        lambda: event_type(Derived),
        lambda: Derived.from_builder(None),
    ):
        with pytest.raises(BindError, match=r"Derived is not bound.*a binding is not inherited"):
            use()
    with pytest.raises(BindError, match="inherits from Ask, which is bound itself"):
        bind(schema.Small)(Derived)


def test_an_unbound_class_is_refused_where_it_is_used() -> None:
    class Plain(BaseEvent):
        pass

    class NoInit(BaseEvent):
        def __init__(self) -> None:
            pass

    for use in (Plain, lambda: event_type(NoInit()), lambda: event_type(Plain), lambda: Plain().which()):
        with pytest.raises(BindError, match="put @bind"):
            use()
    with pytest.raises(BindError, match="is no event"):
        event_type(int)  # type: ignore[arg-type]
    with pytest.raises(BindError, match="is no event"):
        event_type(Inner)  # type: ignore[arg-type]
    assert "NoInit" in repr(NoInit())


def test_reload_of_an_unchanged_schema_with_another_parser_still_fits_nested_classes() -> None:
    # capnp.load has a parser of its own: its structs are other objects with the same ids.
    import capnp

    site = str(__import__("pathlib").Path(capnp.__file__).parent.parent)
    other = capnp.load(str(SCHEMAS / "everything.capnp"), imports=[site])

    @bind(other.Everything)
    class Foreign(BaseEvent):
        inner: Inner = OPTIONAL
        inners: Sequence[Inner] = ()

    event = Foreign(inner=Inner(number=1, text="x", more=[Inner(number=4)]), inners=[Inner(number=2)])
    copied = Foreign(inner=received(event).inner, inners=received(event).inners)
    for read in (event, received(event), copied, received(copied)):
        assert type(read.inner) is Inner
        assert (read.inner.number, read.inner.text, read.inners[0].number) == (1, "x", 2)
        assert read.inner.more[0].number == 4
    assert copied == event
    # ... and the other way round.
    assert Everything(inner=received(event).inner).inner == Inner(number=1, text="x", more=[Inner(number=4)])
    assert received(Everything(inner=received(event).inner)).inner.number == 1


def test_an_event_inside_a_struct_of_another_schema_tree_is_read_without_its_class() -> None:
    import capnp

    @bind(schema.Small)
    class Small(BaseEvent):
        pass

    @bind(schema.Holder)
    class Holder(BaseEvent):
        small: Small = OPTIONAL

    small = Small(id=1, text="x")  # type: ignore[call-arg]
    event = received(Holder(small=small))
    assert type(event.small) is Small
    assert event.small == small

    site = str(__import__("pathlib").Path(capnp.__file__).parent.parent)
    other = capnp.SchemaParser().load(str(SCHEMAS / "everything.capnp"), imports=[site])
    with own_registry():
        from lahja_capn.binding import registry

        registry._events.pop(schema.Holder.schema.node.id)
        registry._classes.pop(schema.Holder.schema.node.id)

        @bind(other.Holder)
        class Foreign(BaseEvent):
            pass

        foreign: Any = received(Foreign(small=small, smalls=[small]))  # type: ignore[call-arg]
        assert (foreign.small.id, foreign.smalls[0].text) == (1, "x")
        assert not isinstance(foreign.small, BaseEvent)


def test_an_event_class_may_be_bound_to_a_struct_from_the_import_hook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(SCHEMAS))
    import capnp

    monkeypatch.syspath_prepend(str(__import__("pathlib").Path(capnp.__file__).parent.parent))
    module = __import__("original_capnp")
    try:

        @bind(module.Event)
        class Event(BaseEvent):
            color: str

        assert received(Event(color="green")).color == "green"
    finally:
        sys.modules.pop("original_capnp", None)


# --- requests -------------------------------------------------------------------------------------------


def test_the_response_type_is_the_type_argument_on_class_and_instance() -> None:
    assert Ask.expected_response_type() is Answer
    assert Ask(question="?").expected_response_type() is Answer
    assert event_type(Ask).is_request
    assert not event_type(Answer).is_request


def test_an_own_expected_response_type_wins() -> None:
    @bind(schema.Single)
    class Static(BaseRequestResponseEvent[Small]):
        @staticmethod
        def expected_response_type() -> type[Small]:
            return Answer  # type: ignore[return-value]

    assert Static.expected_response_type() is Answer
    assert event_type(Static).is_request

    @bind(schema.Small)
    class WithoutArgument(BaseRequestResponseEvent):  # type: ignore[type-arg]
        @classmethod
        def expected_response_type(cls) -> type[Answer]:
            return Answer

    assert WithoutArgument().expected_response_type() is Answer


class Later(BaseEvent):
    pass


def test_a_response_type_may_be_named_before_it_exists() -> None:
    @bind(schema.Ask)
    class AskByName(BaseRequestResponseEvent["Later"]):
        pass

    @bind(schema.Small)
    class AskLocal(BaseRequestResponseEvent["Local"]):
        pass

    @bind(schema.Single)
    class AskNobody(BaseRequestResponseEvent["Nobody"]):  # type: ignore[name-defined]
        pass

    assert AskByName.expected_response_type() is Later
    with pytest.raises(BindError, match=r"\(yet\)"):
        AskLocal.expected_response_type()

    @bind(schema.Answer)
    class Local(BaseEvent):
        pass

    assert AskLocal.expected_response_type() is Local
    with pytest.raises(BindError, match=r"Nobody.*\(yet\)"):
        AskNobody.expected_response_type()


def test_a_request_without_a_response_type_is_refused() -> None:
    with pytest.raises(BindError, match="is no event class"):

        @bind(schema.Ask)
        class Bare(BaseRequestResponseEvent):  # type: ignore[type-arg]
            pass

    with pytest.raises(BindError, match="is no event class"):

        @bind(schema.Ask)
        class Wrong(BaseRequestResponseEvent[int]):  # type: ignore[type-var]
            pass


# --- classes that serialize themselves ------------------------------------------------------------------

TYPE_ID = 0xF1E2D3C4B5A69788


@pytest.mark.parametrize("type_id", [0, 5, 2**63 - 1, 2**64, "x", True])
def test_a_type_id_must_be_a_64_bit_id(type_id: Any) -> None:
    class Own(BaseEvent):
        def serialize(self) -> bytes:
            return b""

        @classmethod
        def deserialize(cls, data: bytes) -> Own:
            return cls()

    with pytest.raises(BindError, match="64-bit id"):
        bind(type_id=type_id)(Own)


def test_a_class_bound_by_type_id_needs_both_methods_and_an_init() -> None:
    class Half(BaseEvent):
        def serialize(self) -> bytes:
            return b""

    with pytest.raises(BindError, match="deserialize is missing"):
        bind(type_id=TYPE_ID)(Half)
    with pytest.raises(BindError, match="is for events"):
        bind(type_id=TYPE_ID)(type("Part", (Struct,), {}))

    @bind(type_id=TYPE_ID)
    class NoInit(BaseEvent):
        def serialize(self) -> bytes:
            return b""

        @classmethod
        def deserialize(cls, data: bytes) -> NoInit:
            return cls()

    with pytest.raises(BindError, match="needs an __init__"):
        NoInit(x=1)  # type: ignore[call-arg]


def test_a_data_view_annotation_may_be_inherited_or_quoted() -> None:
    @bind(schema.Small)
    class View(BaseEvent):
        data: "DataView"  # noqa: UP037

    assert isinstance(View(data=b"x").data, memoryview)


@pytest.mark.parametrize("base", [BaseEvent, Struct])
def test_bind_without_parentheses_names_the_form_with_a_struct(base: Any) -> None:
    cls: Any = type("Small", (base,), {"__module__": __name__})
    with pytest.raises(BindError, match=r"Small: .*in parentheses: @bind\(schema\.Small\)\.") as caught:
        bind(cls)
    assert caught.value.event == "Small"


def test_what_pycapnp_raises_at_bind_is_a_bind_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise capnp.KjException("Cannot form pointer")

    # By its full name: the package's attribute `bind` is the function.
    monkeypatch.setattr(sys.modules["lahja_capn.binding.bind"], "check_class", fail)
    with pytest.raises(BindError, match="Wrong cannot be bound: Cannot form pointer"):
        bind(schema.Small)(type("Wrong", (BaseEvent,), {"__module__": __name__}))


def test_an_own_init_that_sets_fields_is_told_to_go() -> None:
    @bind(schema.Small)
    class Small(BaseEvent):
        def __init__(self, id: int) -> None:
            super().__init__()
            self.id = id

    with pytest.raises(AttributeError, match=r"Small is immutable: 'id' .* Delete this __init__: the schema"):
        Small(1)
    with pytest.raises(AttributeError, match=r"Construct a new one instead\.$"):
        Answer().text = "x"  # type: ignore[call-arg, misc]


def test_a_class_bound_by_type_id_without_an_init_says_so_for_any_argument() -> None:
    @bind(type_id=0xC0FFEE00DECAFBAD)
    class Own(BaseEvent):
        def serialize(self) -> bytes:
            return b""

        @classmethod
        def deserialize(cls, data: bytes) -> Own:
            return cls()

    with pytest.raises(BindError, match="needs an __init__ of its own"):
        Own(1)
