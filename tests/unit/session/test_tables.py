from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lahja_capn.binding import TypeRow
from lahja_capn.errors import LocalProtocolError, RemoteProtocolError
from lahja_capn.session import Incompatibility, WireTable
from lahja_capn.session.tables import PeerTable
from lahja_capn.wire import Limits
from tests.unit.session.pair import ALPHA, ASK, BETA, fake_type, struct_row

# --- our own ------------------------------------------------------------------------------------------


def test_types_are_numbered_from_1_and_keep_their_number() -> None:
    table = WireTable()
    assert [table.wire_id(t) for t in (ALPHA, BETA, ALPHA)] == [1, 2, 1]
    assert table.rows == [(1, ALPHA.row), (2, BETA.row)]
    assert ALPHA.type_id in table
    assert ASK.type_id not in table


def test_reachable_structs_come_before_their_type_and_only_once() -> None:
    inner, other = struct_row(1), struct_row(2)
    first = fake_type(10, "First", reachable=(inner,))
    second = fake_type(11, "Second", reachable=(inner, other))
    table = WireTable()
    table.wire_id(first)
    table.wire_id(second)
    assert table.rows == [(0, inner), (1, first.row), (0, other), (2, second.row)]


def test_a_reachable_struct_may_become_an_event_and_the_reverse() -> None:
    inner = fake_type(12, "Inner")
    outer = fake_type(13, "Outer", reachable=(inner.row,))
    table = WireTable()
    table.wire_id(outer)
    table.wire_id(inner)
    assert table.rows == [(0, inner.row), (1, outer.row), (2, inner.row)]
    table = WireTable()
    table.wire_id(inner)
    table.wire_id(outer)
    assert table.rows == [(1, inner.row), (2, outer.row)]


def test_a_class_that_was_bound_again_unchanged_keeps_its_number() -> None:
    table = WireTable()
    table.wire_id(fake_type(1, "Alpha"))
    assert table.wire_id(fake_type(1, "Alpha")) == 1
    assert len(table.rows) == 1


def test_a_class_that_was_bound_again_with_another_layout_is_refused() -> None:
    table = WireTable()
    table.wire_id(fake_type(1, "Alpha"))
    for changed in (
        fake_type(1, "Alpha", layout=(9,)),
        fake_type(2, "Outer", reachable=(fake_type(1, "Alpha", layout=(9,)).row,)),
    ):
        with pytest.raises(LocalProtocolError, match=r"Alpha.*restart"):
            table.wire_id(changed)
    assert len(table.rows) == 1


def test_a_full_table_refuses_and_stays_as_it_is() -> None:
    table = WireTable(Limits(table_types=1, table_structs=1))
    with pytest.raises(LocalProtocolError, match="structs of Wide"):
        table.wire_id(fake_type(3, "Wide", reachable=(struct_row(1), struct_row(2))))
    assert table.rows == []
    table.wire_id(ALPHA)
    with pytest.raises(LocalProtocolError, match=r"Beta does not fit.*1 event types"):
        table.wire_id(BETA)
    assert table.wire_id(ALPHA) == 1
    assert table.rows == [(1, ALPHA.row)]


def test_a_name_longer_than_peers_accept_is_refused_here() -> None:
    long = fake_type(4, "N" * 1024)
    with pytest.raises(LocalProtocolError, match="1024"):
        WireTable().wire_id(long)


# --- the peer's ---------------------------------------------------------------------------------------


def peer_table(**limits: int) -> PeerTable:
    return PeerTable(Limits(**limits))


def refused(table: PeerTable, *rows: tuple[int, TypeRow]) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        table.add(rows)
    assert caught.value.code == "invalidTable"
    return str(caught.value)


def test_declared_types_are_known_by_wire_id_and_structs_are_not_types() -> None:
    table = peer_table()
    table.add([(7, ALPHA.row), (0, struct_row(1))])
    assert table.routes[7].row.name == ALPHA.row.name
    assert ALPHA.type_id in table
    assert struct_row(1).type_id not in table
    assert list(table.type_ids) == [ALPHA.type_id]


def test_an_identical_declaration_changes_nothing() -> None:
    table = peer_table()
    assert table.add([(7, ALPHA.row)]) == [ALPHA.type_id]
    route = table.routes[7]
    assert table.add([(7, ALPHA.row), (0, ALPHA.row)]) == []
    assert table.routes[7] is route


def test_a_struct_may_get_its_wire_id_later() -> None:
    table = peer_table()
    table.add([(0, ALPHA.row)])
    assert ALPHA.type_id not in table
    table.add([(3, ALPHA.row)])
    assert table.routes[3].row.type_id == ALPHA.type_id


@pytest.mark.parametrize(
    "change", [{"name": "other"}, {"layout": (1, 2, 4)}, {"layout": ()}, {"kind": "opaque"}]
)
@pytest.mark.parametrize("first", [0, 7])
def test_a_type_that_is_declared_again_differently_is_refused(change: dict[str, Any], first: int) -> None:
    table = peer_table()
    table.add([(first, ALPHA.row)])
    assert "twice" in refused(table, (7, dataclasses.replace(ALPHA.row, **change)))


def test_a_wire_id_that_stands_for_two_types_is_refused() -> None:
    table = peer_table()
    table.add([(7, ALPHA.row)])
    assert "wire id 7" in refused(table, (7, BETA.row))


def test_a_type_with_two_wire_ids_is_refused() -> None:
    table = peer_table()
    table.add([(7, ALPHA.row)])
    assert "two wire ids, 7 and 8" in refused(table, (8, ALPHA.row))


def test_rows_that_make_no_sense_are_refused() -> None:
    assert "type id 0" in refused(peer_table(), (1, TypeRow(0, "struct", "zero", ())))
    assert "unknown(9)" in refused(peer_table(), (1, TypeRow(5, "unknown(9)", "odd", ())))
    assert "1025 bytes" in refused(peer_table(), (1, TypeRow(5, "struct", "ü" * 512 + "x", ())))
    peer_table().add([(1, TypeRow(5, "struct", "ü" * 512, ()))])


def test_an_opaque_row_with_a_layout_is_refused() -> None:
    assert "opaque" in refused(peer_table(), (1, TypeRow(5, "opaque", "odd", (1,))))
    peer_table().add([(1, TypeRow(5, "opaque", "plain", ()))])


@pytest.mark.parametrize("name", ["", "a\0b", "\n", "ü"])
def test_a_name_may_be_any_text(name: str) -> None:
    peer_table().add([(1, TypeRow(5, "struct", name, ()))])


def test_all_65535_wire_ids_may_be_used_and_repeated() -> None:
    table = peer_table()
    rows = [(n, TypeRow(n, "struct", "", ())) for n in range(1, 65_536)]
    table.add(rows)
    table.add(rows)
    assert len(table.routes) == 65_535


def test_more_types_or_structs_than_the_limit_are_refused() -> None:
    table = peer_table(table_types=2, table_structs=1)
    table.add([(1, ALPHA.row), (2, BETA.row), (0, struct_row(1))])
    assert "more than 2 event types" in refused(table, (3, ASK.row))
    assert "more than 1 structs" in refused(table, (0, struct_row(2)))
    table.add([(1, ALPHA.row), (0, struct_row(1))])


def test_tables_over_16_mib_are_refused() -> None:
    table = peer_table()
    layout = tuple(range(65_000))
    rows = [(n, TypeRow(n, "struct", "", layout)) for n in range(1, 66)]
    size = 24 + 4 * 65_000
    fits = 16 * 1024 * 1024 // size
    table.add(rows[:fits])
    table.add(rows[:fits])
    assert "16777216 bytes" in refused(table, rows[fits])


# --- the verdict --------------------------------------------------------------------------------------


def verdict(
    ours: TypeRow, theirs: TypeRow, *more: TypeRow, reachable: tuple[TypeRow, ...] = ()
) -> Incompatibility | None:
    event_type = fake_type(1, "Alpha", reachable=reachable)
    event_type.row = ours
    table = peer_table()
    table.add([(1, theirs), *((0, row) for row in more)])
    return table.verdict(event_type)[0]


@pytest.mark.parametrize(
    ("ours", "theirs", "ordinal"),
    [
        ((1, 2, 3), (1, 2, 3), None),
        ((1, 2, 3), (1, 2), None),
        ((1, 2), (1, 2, 3, 4), None),
        ((), (1, 2), None),
        ((1, 2), (), None),
        ((1, 2, 3), (9, 2, 3), 0),
        ((1, 2, 3), (1, 9), 1),
        ((1, 2, 3), (1, 2, 9, 4), 2),
    ],
)
def test_common_prefixes_of_layouts_decide(
    ours: tuple[int, ...], theirs: tuple[int, ...], ordinal: int | None
) -> None:
    found = verdict(
        dataclasses.replace(ALPHA.row, layout=ours),
        dataclasses.replace(ALPHA.row, layout=theirs, name="theirs"),
    )
    assert (found and found.ordinal) == ordinal
    assert (found is None) == (ordinal is None)
    if found is not None:
        assert str(found) == f"Alpha (0x9000000000000001): the field with ordinal {ordinal} differs"


def test_a_struct_deep_inside_decides_too_and_is_named() -> None:
    ours, theirs = struct_row(5, (1, 2)), struct_row(5, (1, 3))
    found = verdict(ALPHA.row, ALPHA.row, theirs, reachable=(struct_row(4), ours))
    assert found is not None
    assert (found.struct_id, found.ordinal) == (ours.type_id, 1)
    assert "through events.capnp:Inner5" in str(found)


def test_a_struct_that_only_one_side_lists_is_not_compared() -> None:
    assert verdict(ALPHA.row, ALPHA.row, struct_row(6), reachable=(struct_row(5),)) is None


def test_another_kind_is_another_layout() -> None:
    found = verdict(ALPHA.row, dataclasses.replace(ALPHA.row, kind="opaque", layout=()))
    assert found is not None
    assert found.ordinal is None
    assert "kind of row differs" in str(found)


def test_a_verdict_is_found_once_and_again_when_rows_that_matter_arrive() -> None:
    inner = struct_row(5, (1,))
    event_type = fake_type(1, "Alpha", reachable=(inner,))
    table = peer_table()
    table.add([(1, event_type.row), (2, BETA.row)])
    assert table.verdict(event_type) == (None, False)
    assert table.add([(0, struct_row(6))]) == []
    assert table.add([(0, struct_row(5, (2,)))]) == [event_type.type_id]
    found, is_new = table.verdict(event_type)
    assert found is not None
    assert is_new
    assert table.verdict(event_type) == (found, False)


def test_a_class_that_is_bound_later_gets_a_verdict_of_its_own() -> None:
    table = peer_table()
    table.add([(1, ALPHA.row)])
    assert table.verdict(ALPHA)[0] is None
    again = fake_type(1, "Alpha", layout=(9,))
    assert table.verdict(again)[0] is not None
    assert table.verdict(ALPHA)[0] is None
