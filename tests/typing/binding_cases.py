# What a type checker knows of events. Each line that ends in a comment `# > ...` is a reveal_type whose answer is
# checked, `# ! code` a line that must be an error of that kind. test_typing.py runs mypy on this file.
from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, reveal_type

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
)
from lahja_capn.schema import load

schema = load("shop.capnp")


@bind(schema.Line)
class Line(Struct):
    sku: str
    price: float = 0.0


@bind(schema.OrderPlaced)
class OrderPlaced(BaseEvent):
    orderId: int
    lines: Sequence[Line]
    payload: DataView
    scan: DataView = DataView()
    counts: Sequence[int] = ()
    first: Line = OPTIONAL
    extra: AnyPointer = OPTIONAL
    state: Literal["open", "done"] = "open"
    color: Enumerant = Enumerant("red", 0)


@bind(schema.Answer)
class Answer(BaseEvent):
    text: str


@bind(schema.Ask)
class Ask(BaseRequestResponseEvent[Answer]):
    question: str


@bind(schema.Old)
class Old(BaseRequestResponseEvent[Answer]):
    question: str

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


@bind  # ! arg-type
class NoParentheses(BaseEvent):
    text: str


@bind  # ! arg-type
class NoParenthesesStruct(Struct):
    text: str


@bind(Line)  # ! arg-type
class BoundToAClass(Struct):
    sku: str


order = OrderPlaced(orderId=1, lines=[Line(sku="a")], payload=b"bytes")
OrderPlaced(
    orderId=1, lines=(), payload=bytearray(b"x"), scan=memoryview(b"y"), extra="text", first=Line(sku="b")
)
OrderPlaced(orderId=1, lines=(), payload=b"", extra=Line(sku="c"))
OrderPlaced(orderId=1, lines=(), payload=b"", extra=AnyPointer.of_list("UInt8", [1]))
OrderPlaced(orderId=1, lines=(), payload=b"", color="green")
OrderPlaced(orderId=1, lines=(), payload=b"", color=1)
OrderPlaced(orderId=1, lines=(), payload=b"", color=b"green")  # ! arg-type

reveal_type(order)  # > binding_cases.OrderPlaced
reveal_type(order.orderId)  # > int
reveal_type(order.lines)  # > typing.Sequence[binding_cases.Line]
reveal_type(order.lines[0].sku)  # > str
reveal_type(order.payload)  # > memoryview[int]
reveal_type(order.scan)  # > memoryview[int]
reveal_type(order.counts)  # > typing.Sequence[int]
reveal_type(order.first)  # > binding_cases.Line
reveal_type(order.extra)  # > lahja_capn.binding.anypointer.AnyPointer
reveal_type(order.extra.as_text())  # > str
reveal_type(order.state)  # > Literal['open'] | Literal['done']
reveal_type(order.color)  # > lahja_capn.binding.enumerant.Enumerant
reveal_type(order.color.raw)  # > int
reveal_type(order.which())  # > str
reveal_type(order.get_origin())  # > str
reveal_type(order.is_bound)  # > bool
reveal_type(order.broadcast_config())  # > lahja_capn.binding.event.BroadcastConfig
reveal_type(OrderPlaced.from_builder(object()))  # > binding_cases.OrderPlaced
reveal_type(Ask.expected_response_type())  # > type[binding_cases.Answer]
reveal_type(Ask(question="?").expected_response_type())  # > type[binding_cases.Answer]
reveal_type(Old.expected_response_type())  # > type[binding_cases.Answer]
reveal_type(event_type(order).event_class)  # > type[lahja_capn.binding.event.BaseEvent]
reveal_type(Line(sku="x"))  # > binding_cases.Line

OrderPlaced(lines=[], payload=b"")  # ! call-arg
OrderPlaced(orderId="1", lines=[], payload=b"")  # ! arg-type
OrderPlaced(orderId=1, lines=[1], payload=b"")  # ! list-item
OrderPlaced(orderId=1, lines=[], payload="text")  # ! arg-type
OrderPlaced(orderId=1, lines=[], payload=b"", typo=1)  # ! call-arg
OrderPlaced(orderId=1, lines=[], payload=b"", extra=5)  # ! arg-type
OrderPlaced(orderId=1, lines=[], payload=b"", state="lost")  # ! arg-type
OrderPlaced(1, [], b"")  # ! call-arg
order.orderId = 5  # ! misc
order.payload = b"x"  # ! misc
order.lines[0] = Line(sku="x")  # ! index
order.lines[0].sku = "y"  # ! misc
order.nothing  # ! attr-defined
