package session

import "lahja-capn.example/peer/internal/wirecapnp"

// Control messages as values: one struct for each variant of Control in wire.capnp. docs/wire.md section 5 describes
// every field.
type (
	Hello struct {
		ProtocolVersion uint16
		Name            string
		Instance        []byte
		Implementation  string
		Version         string
		FrameLimit      uint32
		KeepaliveMs     uint32
		EventCredit     uint64
		RequestCredit   uint64
		Features        []string
		Types           []TableRow
	}
	Declare struct {
		Types []TableRow
	}
	Subscriptions struct {
		Sequence  uint64
		Add       []uint64
		Remove    []uint64
		All       bool
		AckWanted bool
	}
	SubscriptionsAck struct {
		Sequence uint64
	}
	Credit struct {
		Events   uint64
		Requests uint64
	}
	Failed struct {
		Correlation uint64
		Code        wirecapnp.FailedCode
		TypeName    string
		Text        string
	}
	Ping    struct{}
	Pong    struct{}
	Dropped struct {
		Counts []DropCount
	}
	DropCount struct {
		TypeID uint64
		Count  uint64
	}
	Goodbye struct {
		Code wirecapnp.GoodbyeCode
		Text string
		// Unreadable is true if the peer's code or text could not be read: it has ended all the same.
		Unreadable bool
	}
)

// Control is any of the messages above.
type Control interface {
	which() wirecapnp.Control_Which
}

func (*Hello) which() wirecapnp.Control_Which         { return wirecapnp.Control_Which_hello }
func (*Declare) which() wirecapnp.Control_Which       { return wirecapnp.Control_Which_declare }
func (*Subscriptions) which() wirecapnp.Control_Which { return wirecapnp.Control_Which_subscriptions }
func (*SubscriptionsAck) which() wirecapnp.Control_Which {
	return wirecapnp.Control_Which_subscriptionsAck
}
func (*Credit) which() wirecapnp.Control_Which  { return wirecapnp.Control_Which_credit }
func (*Failed) which() wirecapnp.Control_Which  { return wirecapnp.Control_Which_failed }
func (*Ping) which() wirecapnp.Control_Which    { return wirecapnp.Control_Which_ping }
func (*Pong) which() wirecapnp.Control_Which    { return wirecapnp.Control_Which_pong }
func (*Dropped) which() wirecapnp.Control_Which { return wirecapnp.Control_Which_dropped }
func (*Goodbye) which() wirecapnp.Control_Which { return wirecapnp.Control_Which_goodbye }

// Row describes a struct, or an opaque type, to the other side: docs/wire.md section 6.1.
type Row struct {
	TypeID uint64
	Kind   wirecapnp.Kind
	Name   string
	Layout []uint32
}

// TableRow is a row of an id table. WireID 0: a struct that is reachable from an event type.
type TableRow struct {
	WireID uint16
	Row
}

func (r *Row) equal(other *Row) bool {
	if r == other {
		return true
	}
	if r.TypeID != other.TypeID || r.Kind != other.Kind || r.Name != other.Name || len(r.Layout) != len(other.Layout) {
		return false
	}
	for i, hash := range r.Layout {
		if other.Layout[i] != hash {
			return false
		}
	}
	return true
}
