package session

import (
	"fmt"

	"lahja-capn.example/peer/internal/wire"
	"lahja-capn.example/peer/internal/wirecapnp"
)

// Limits of an id table: docs/wire.md sections 6.1 and 11.
const (
	maxTableTypes   = 65535
	maxTableStructs = 65535
	maxTableBytes   = 16 << 20
	tableRowBytes   = 24
)

// Type is an event type as this endpoint knows it: its row, and those of the structs reachable from it.
type Type struct {
	Row       Row
	Reachable []Row
}

// Table is an endpoint's own id table, shared by its sessions. It only grows.
type Table struct {
	rows    []TableRow
	wireIDs map[uint64]uint16
	known   map[uint64]*Row
	structs int
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{wireIDs: map[uint64]uint16{}, known: map[uint64]*Row{}}
}

// WireID returns a type's wire id. On its first use the type is added, after the structs that are reachable from it;
// each session declares the new rows to its peer before it uses them.
func (t *Table) WireID(eventType *Type) (uint16, error) {
	id := eventType.Row.TypeID
	if wireID, ok := t.wireIDs[id]; ok {
		if !t.known[id].equal(&eventType.Row) {
			return 0, differs(t.known[id], &eventType.Row)
		}
		return wireID, nil
	}
	if len(t.wireIDs) >= maxTableTypes {
		return 0, fmt.Errorf("%s does not fit the id table: %d event types are in use", eventType.Row.Name, maxTableTypes)
	}
	var fresh []*Row
	for i := range eventType.Reachable {
		row := &eventType.Reachable[i]
		known, ok := t.known[row.TypeID]
		if ok && !known.equal(row) {
			return 0, differs(known, row)
		}
		if !ok && row.TypeID != id {
			if err := checkOwn(row); err != nil {
				return 0, err
			}
			fresh = append(fresh, row)
		}
	}
	if known, ok := t.known[id]; ok && !known.equal(&eventType.Row) {
		return 0, differs(known, &eventType.Row)
	}
	if err := checkOwn(&eventType.Row); err != nil {
		return 0, err
	}
	if t.structs+len(fresh) > maxTableStructs {
		return 0, fmt.Errorf("the structs of %s do not fit the id table: the limit is %d", eventType.Row.Name, maxTableStructs)
	}
	for _, row := range fresh {
		t.structs++
		t.known[row.TypeID] = row
		t.rows = append(t.rows, TableRow{Row: *row})
	}
	wireID := uint16(len(t.wireIDs) + 1)
	t.wireIDs[id] = wireID
	t.known[id] = &eventType.Row
	t.rows = append(t.rows, TableRow{WireID: wireID, Row: eventType.Row})
	return wireID, nil
}

func checkOwn(row *Row) error {
	if row.TypeID == 0 {
		return fmt.Errorf("%s has type id 0", row.Name)
	}
	if len(row.Name) > nameTextBytes {
		return fmt.Errorf("the name of %.100q... has %d bytes: peers accept %d", row.Name, len(row.Name), nameTextBytes)
	}
	if len(row.Layout) > 65535 {
		return fmt.Errorf("%s has a layout of %d fields: the limit is 65535", row.Name, len(row.Layout))
	}
	return nil
}

func differs(known, row *Row) error {
	return fmt.Errorf("%s (%#x) is in the id table as %q with another layout or kind. What peers were told cannot "+
		"change: use one version of the schema in a process", row.Name, row.TypeID, known.Name)
}

// Incompatibility says why a type cannot pass between two endpoints.
type Incompatibility struct {
	TypeID uint64
	Name   string
	// StructID is the struct that differs: the event's own, or one reachable from it.
	StructID   uint64
	StructName string
	// Ordinal of the first field that differs; -1 if the kinds do.
	Ordinal int
}

func (i *Incompatibility) String() string {
	where := ""
	if i.StructID != i.TypeID {
		where = " through " + i.StructName
	}
	what := fmt.Sprintf("field with ordinal %d", i.Ordinal)
	if i.Ordinal < 0 {
		what = "kind of row"
	}
	return fmt.Sprintf("%s (%#x)%s: the %s differs", i.Name, i.TypeID, where, what)
}

// peerTable is the id table of one peer, as it declared it, and the verdict on each type that both sides know.
type peerTable struct {
	rows    map[uint64]*Row
	wireIDs map[uint64]uint16
	types   map[uint16]*Row
	structs int
	bytes   int
	// verdicts are found once for a type; nil: compatible. reachedBy tells which ones a new row makes stale.
	verdicts  map[uint64]*Incompatibility
	reachedBy map[uint64]map[uint64]bool
}

func newPeerTable() peerTable {
	return peerTable{
		rows:      map[uint64]*Row{},
		wireIDs:   map[uint64]uint16{},
		types:     map[uint16]*Row{},
		verdicts:  map[uint64]*Incompatibility{},
		reachedBy: map[uint64]map[uint64]bool{},
	}
}

func invalidTable(format string, args ...any) *wire.Error {
	return wire.Errorf(wirecapnp.GoodbyeCode_invalidTable, "the peer's id table: "+format, args...)
}

// add takes rows that the peer declared. It returns the event types whose verdict may be another now.
func (t *peerTable) add(rows []TableRow) ([]uint64, error) {
	var affected []uint64
	for i := range rows {
		changed, err := t.addRow(&rows[i])
		if err != nil {
			return nil, err
		}
		if !changed {
			continue
		}
		id := rows[i].TypeID
		delete(t.verdicts, id)
		affected = append(affected, id)
		for reaching := range t.reachedBy[id] {
			delete(t.verdicts, reaching)
			affected = append(affected, reaching)
		}
	}
	return affected, nil
}

func (t *peerTable) addRow(row *TableRow) (changed bool, err error) {
	known, repeated := t.rows[row.TypeID]
	if repeated {
		if !known.equal(&row.Row) {
			return false, invalidTable("type %#x is declared twice, differently: %q, then %q", row.TypeID, known.Name, row.Name)
		}
	} else if err := t.check(row); err != nil {
		return false, err
	}
	if row.WireID == 0 {
		if repeated {
			return false, nil
		}
		if t.structs >= maxTableStructs {
			return false, invalidTable("more than %d structs without a wire id", maxTableStructs)
		}
		t.structs++
		// A copy: a pointer into rows would keep the whole message's rows, repeated ones too.
		fresh := row.Row
		t.rows[row.TypeID] = &fresh
		return true, nil
	}
	if before, ok := t.wireIDs[row.TypeID]; ok {
		if before != row.WireID {
			return false, invalidTable("type %#x (%q) has two wire ids, %d and %d", row.TypeID, row.Name, before, row.WireID)
		}
		return false, nil
	}
	if taken, ok := t.types[row.WireID]; ok {
		return false, invalidTable("wire id %d stands for %q and for %q", row.WireID, taken.Name, row.Name)
	}
	if !repeated {
		fresh := row.Row
		known = &fresh
		t.rows[row.TypeID] = known
	}
	t.wireIDs[row.TypeID] = row.WireID
	t.types[row.WireID] = known
	return true, nil
}

// check judges a row whose type id is new.
func (t *peerTable) check(row *TableRow) error {
	switch {
	case row.TypeID == 0:
		return invalidTable("row %q has type id 0", row.Name)
	case row.Kind > wirecapnp.Kind_opaque:
		return invalidTable("row %q is of kind %d: wanted struct or opaque", row.Name, row.Kind)
	case row.Kind == wirecapnp.Kind_opaque && len(row.Layout) > 0:
		return invalidTable("row %q is opaque and has a layout of %d elements", row.Name, len(row.Layout))
	case len(row.Name) > nameTextBytes:
		return invalidTable("a row's name has %d bytes: the limit is %d", len(row.Name), nameTextBytes)
	}
	t.bytes += tableRowBytes + len(row.Name) + 4*len(row.Layout)
	if t.bytes > maxTableBytes {
		return invalidTable("it takes more than %d bytes", maxTableBytes)
	}
	return nil
}

// verdict returns why the two sides cannot exchange a type, or nil; and true if that is a new finding. It looks at
// every struct reachable from the type, as known here, that the peer declared too.
func (t *peerTable) verdict(eventType *Type) (*Incompatibility, bool) {
	id := eventType.Row.TypeID
	if found, ok := t.verdicts[id]; ok {
		return found, false
	}
	var found *Incompatibility
	look := func(ours *Row) {
		reaching := t.reachedBy[ours.TypeID]
		if reaching == nil {
			reaching = map[uint64]bool{}
			t.reachedBy[ours.TypeID] = reaching
		}
		reaching[id] = true
		theirs, ok := t.rows[ours.TypeID]
		if !ok || found != nil {
			return
		}
		ordinal, same := firstDifference(ours, theirs)
		if !same {
			found = &Incompatibility{TypeID: id, Name: eventType.Row.Name, StructID: ours.TypeID,
				StructName: ours.Name, Ordinal: ordinal}
		}
	}
	look(&eventType.Row)
	for i := range eventType.Reachable {
		look(&eventType.Reachable[i])
	}
	t.verdicts[id] = found
	return found, found != nil
}

func firstDifference(ours, theirs *Row) (ordinal int, same bool) {
	if ours.Kind != theirs.Kind {
		return -1, false
	}
	for i := range min(len(ours.Layout), len(theirs.Layout)) {
		if ours.Layout[i] != theirs.Layout[i] {
			return i, false
		}
	}
	return 0, true
}
