"""Control messages in forms that no library's writer makes: those that must be read, and those that must not."""

from __future__ import annotations

from collections.abc import Callable

from . import writing
from .peer import NAME, Script, control, hello_value, refuse, subscriptions, talk
from .plans import plan_of, wire
from .store import Store
from .talk_basics import see_counts
from .talk_types import count, unknown_row
from .writing import Builder, Raw, Sized, Where, frame

Write = Callable[[Builder, Where], None]

_VOID, _BIT, _BYTE, _TWO, _FOUR, _EIGHT, _POINTER = range(7)
_BITS_OF = {_VOID: 0, _BIT: 1, _BYTE: 8, _TWO: 16, _FOUR: 32, _EIGHT: 64, _POINTER: 64}


def add(store: Store) -> None:
    _short_structs(store)
    _empty_lists(store)
    _null_pads(store)
    _not_read(store)


def plain(code: int, elements: int, content: bytes = b"") -> Write:
    """A list of numbers, or of pointers."""

    def write(builder: Builder, at: Where) -> None:
        to = builder.alloc(at.segment, -(-elements * _BITS_OF[code] // 64))
        builder.put_bytes(to, content)
        builder.point(at, to, 1, code | elements << 3)

    return write


def structs(data_words: int, pointers: int, elements: list[bytes]) -> Write:
    """A list of structs of this size, whose data sections begin like this."""

    def write(builder: Builder, at: Where) -> None:
        size = data_words + pointers
        to = builder.alloc(at.segment, 1 + len(elements) * size)
        builder.put(to, len(elements) << 2 | data_words << 32 | pointers << 48)
        builder.point(at, to, 1, writing.COMPOSITE | len(elements) * size << 3)
        for i, content in enumerate(elements):
            builder.put_bytes(to + (1 + i * size), content)

    return write


# --- shorter than the schema's --------------------------------------------------------------------------------


def _short_structs(store: Store) -> None:
    many = 200
    forms: dict[str, tuple[str, Write]] = {
        "bytes": ("elements of 1 byte", plain(_BYTE, many, bytes(range(many)))),
        "2-bytes": ("elements of 2 bytes", plain(_TWO, many, b"\1\2" * many)),
        "4-bytes": ("elements of 4 bytes", plain(_FOUR, many, b"\1\2\3\4" * many)),
        "8-bytes": ("elements of 8 bytes", plain(_EIGHT, many, b"\7" * 8 * many)),
        "one-word": ("structs of one word", structs(1, 0, [b"\7" * 8] * many)),
        "pointers": ("null pointers", plain(_POINTER, many)),
        "pointer-structs": ("structs of one pointer", structs(0, 1, [b""] * many)),
        "two-words": ("structs of two words", structs(2, 0, [b"\7" * 16] * many)),
        "wide": ("structs of four words and two pointers", structs(4, 2, [b"\7" * 32] * many)),
    }
    for name, (form, write) in forms.items():
        script = Script().come_up().send(control(dropped={"counts": Raw([], write)}) * 2).still_there()
        talk(store, f"dropped-{name}", f"`counts` as {many} {form}", script.ends())

    ids = [(1 << 63) + i for i in range(many)]
    rows = [b"\0" * 8 + type_id.to_bytes(8, "little") for type_id in ids]
    script = Script(subscribe=["Count"]).come_up("Count")
    script.send(control(declare={"types": Raw([], structs(2, 0, rows))}), *count(1))
    note = f"{many} rows of two words: without name and layout"
    talk(store, "rows-two-words", note, see_counts(script, 1).still_there().ends())
    rule = "5, 6.1: a row too short for its type id has type id 0"
    for name in ("bytes", "8-bytes", "one-word", "pointers"):
        form, write = forms[name]
        script = Script().come_up().send(control(declare={"types": Raw([], write)}))
        refuse(store, f"rows-{name}", rule, f"`types` as {many} {form}", script, "invalidTable")

    million = 1_048_000
    script = Script().come_up().send(control(dropped={"counts": Raw([], plain(_BYTE, million))}))
    script.period = 8
    note = f"`counts` as {million} elements of 1 byte: they must not take long, nor much memory"
    talk(store, "dropped-million", note, script.still_there().ends())
    script = Script().come_up().send(control(declare={"types": Raw([], plain(_BYTE, million))}))
    script.period = 8
    note = f"`types` as {million} elements of 1 byte: they must not take long, nor much memory"
    refuse(store, "rows-million", rule, note, script, "invalidTable")


# --- lists of nothing -----------------------------------------------------------------------------------------

_FORMS_OF_NOTHING: dict[str, tuple[str, Write]] = {
    "voids": ("0 Voids", plain(_VOID, 0)),
    "bits": ("0 bits", plain(_BIT, 0)),
    "bytes": ("0 bytes", plain(_BYTE, 0)),
    "numbers": ("0 UInt64", plain(_EIGHT, 0)),
    "pointers": ("0 pointers", plain(_POINTER, 0)),
    "data-structs": ("0 structs of a data word", structs(1, 0, [])),
    "pointer-structs": ("0 structs of a pointer", structs(0, 1, [])),
    "wordless-structs": ("0 structs without words", structs(0, 0, [])),
}


def _empty_lists(store: Store) -> None:
    rule = "5: a list's form counts, also where it has no elements"
    structs_ = _FORMS_OF_NOTHING.keys() - {"bits"}
    # Field -> the forms that its type allows.
    allowed = {
        "ids": {"numbers", "data-structs"},
        "layout": {"numbers", "data-structs"},
        "features": {"pointers", "pointer-structs"},
        "counts": structs_,
        "rows": structs_,
    }
    for field, right in allowed.items():
        for name, (note, write) in _FORMS_OF_NOTHING.items():
            empty = Raw([], write)
            first = {"features": empty} if field == "features" else {}
            script = Script(subscribe=["Count"])
            script.send(control(hello=hello_value("Count", **first)), subscriptions())
            if field == "ids":
                script.send(subscriptions(sequence=2, add=empty, remove=empty))
            elif field == "layout":
                script.send(control(declare={"types": [{**unknown_row(), "layout": empty}]}))
            elif field == "counts":
                script.send(control(dropped={"counts": empty}))
            elif field == "rows":
                script.send(control(declare={"types": empty}))
            if name in right:
                script.sent("subscriptions").expect(up=NAME).send(*count(1))
                talk(store, f"empty-{field}-{name}", f"{field}: {note}", see_counts(script, 1).ends())
            else:
                if field != "features":
                    script.expect(up=NAME)
                refuse(store, f"empty-{field}-{name}", rule, f"{field}: {note}", script, "protocolError")

    rule = "5: ids are the first data words of structs"
    for field in ("add", "remove"):
        bad = Raw([], structs(0, 1, [b""]))
        script = Script().come_up().send(subscriptions(sequence=2, **{field: bad}))
        note = f"`{field}` as structs of one pointer"
        refuse(store, f"unreadable-{field}-without-data", rule, note, script, "protocolError")


# --- far pointers to nothing ----------------------------------------------------------------------------------


def _null_pad(builder: Builder, at: Where) -> None:
    builder.put(at, writing.far(builder.alloc(at.segment, 1)))


def _null_double_pad(builder: Builder, at: Where) -> None:
    pad = builder.alloc(at.segment, 2)
    builder.put(pad, writing.far(Where(at.segment, 0)))
    builder.put(at, writing.far(pad, double=True))


def _null_pads(store: Store) -> None:
    rule = "5: a far pointer to a null word leads to a struct without words"
    for name, write in (("far", _null_pad), ("double-far", _null_double_pad)):
        script = Script().come_up().send(control(credit=Raw({}, write))).still_there()
        talk(store, f"null-pad-struct-{name}", f"{rule}: of a `credit`", script.ends())
        for field, data in (
            ("ids", subscriptions(sequence=2, add=Raw([], write))),
            ("rows", control(declare={"types": Raw([], write)})),
            ("counts", control(dropped={"counts": Raw([], write)})),
            ("text", control(declare={"types": [{**unknown_row(), "name": Raw("", write)}]})),
        ):
            script = Script().come_up().send(data)
            refuse(store, f"null-pad-{field}-{name}", rule, f"where {field} are", script, "protocolError")


# --- pointers that nobody follows -----------------------------------------------------------------------------


def _not_read(store: Store) -> None:
    nowhere = 2 | 5 << 3 | 9 << 32
    plan = plan_of(wire.Control)
    size = plan.data_words + plan.pointers
    for variant in ("ping", "pong"):
        builder = Builder()
        root = builder.alloc(0, size)
        builder.point(Where(0, 0), root, 0, plan.data_words | plan.pointers << 16)
        builder.fill(root, root + plan.data_words, plan, {variant: None})
        builder.put(root + plan.data_words, nowhere)
        script = Script().come_up().send(frame(0, 0, 0, builder.segments))
        if variant == "ping":
            script.sent("pong")
        note = f"the pointer of a {variant}, which nobody follows, leads nowhere"
        talk(store, f"not-read-{variant}", note, script.still_there().ends())

    def later_fields(builder: Builder, at: Where) -> None:
        hello = plan_of(wire.Hello)
        # Where the writer puts the next object.
        behind = Where(0, len(builder.parts[0]) // 8) + (hello.data_words + hello.pointers)
        longer = Sized(hello_value("Count"), hello.data_words, hello.pointers + 2)
        builder.struct(at, hello, longer)
        builder.put(behind, nowhere)
        builder.put(behind + 1, 3)

    script = Script(subscribe=["Count"]).send(control(hello=Raw({}, later_fields)), subscriptions())
    script.sent("subscriptions").expect(up=NAME).send(*count(1))
    note = "pointers of a hello's later fields lead nowhere, and are a capability"
    talk(store, "not-read-later-fields", note, see_counts(script, 1).ends())
