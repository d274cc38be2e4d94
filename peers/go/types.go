package peer

import (
	"errors"
	"fmt"
	"sync"

	"capnproto.org/go/capnp/v3"

	"lahja-capn.example/peer/internal/session"
	"lahja-capn.example/peer/internal/wire"
	"lahja-capn.example/peer/internal/wirecapnp"
)

// Kind of a row: what the root of a message of this type is.
type Kind uint16

const (
	// KindStruct: the struct with this type id.
	KindStruct Kind = 0
	// KindOpaque: a list of bytes that only its own class understands.
	KindOpaque Kind = 1
)

// Row describes an event type, or a struct that is reachable from one, to other endpoints. `lahja-capn table
// --language go FILE.capnp` prints them.
type Row struct {
	TypeID uint64
	Kind   Kind
	Name   string
	Layout []uint32
	// Reaches has the type ids of all structs that are reachable from this one.
	Reaches []uint64
}

func (r *Row) core() session.Row {
	return session.Row{TypeID: r.TypeID, Kind: wirecapnp.Kind(r.Kind), Name: r.Name, Layout: r.Layout}
}

// Schema is a set of rows by type id.
type Schema map[uint64]Row

// NewSchema returns the schema of rows.
func NewSchema(rows ...Row) Schema {
	schema := Schema{}
	for _, row := range rows {
		schema[row.TypeID] = row
	}
	return schema
}

// EventType is a type of events, requests or responses, as this process knows it. Make one with Bind or BindOpaque.
type EventType struct {
	core session.Type
}

// AnyType is an *EventType, a *Struct or an *Opaque.
type AnyType interface{ eventType() *EventType }

func (t *EventType) eventType() *EventType { return t }

// TypeID is the 64-bit id of the Cap'n Proto struct: the type's identity on the bus.
func (t *EventType) TypeID() uint64 { return t.core.Row.TypeID }

// Name is the display name, such as events.capnp:Tick.
func (t *EventType) Name() string { return t.core.Row.Name }

func (t *EventType) String() string { return t.Name() }

// Struct is an event type whose messages are read and built with T, a type that capnpc-go generated.
type Struct[T ~capnp.StructKind] struct {
	*EventType
	newRoot func(*capnp.Segment) (T, error)
}

// Bind makes the event type with this id out of its row in schema and its generated constructor:
//
//	var Tick = peer.Bind(schema, events.Tick_TypeID, events.NewRootTick)
//
// It is meant for package variables, and panics if the row, or one that it reaches, is missing.
func Bind[T ~capnp.StructKind](schema Schema, typeID uint64, newRoot func(*capnp.Segment) (T, error)) *Struct[T] {
	row, ok := schema[typeID]
	if !ok || row.Kind != KindStruct {
		panic(fmt.Sprintf("peer.Bind: the schema has no row of kind struct for type %#x; "+
			"generate the rows again with lahja-capn table", typeID))
	}
	found := &EventType{core: session.Type{Row: row.core()}}
	for _, id := range row.Reaches {
		reached, ok := schema[id]
		if !ok {
			panic(fmt.Sprintf("peer.Bind: %s reaches type %#x, which has no row in the schema", row.Name, id))
		}
		if id != typeID {
			found.core.Reachable = append(found.core.Reachable, reached.core())
		}
	}
	return &Struct[T]{EventType: found, newRoot: newRoot}
}

// New builds a message: fill sets the fields of its root. An error of fill is returned as it is.
func (s *Struct[T]) New(fill func(T) error) (*Message, error) {
	built, segment, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		return nil, err
	}
	defer built.Release()
	root, err := s.newRoot(segment)
	if err != nil {
		return nil, err
	}
	if err := fill(root); err != nil {
		return nil, err
	}
	return s.Encode(built)
}

// Read returns the root of a received event of this type. Nothing is copied: it reads in the received bytes, and what
// it returns may be kept as long as wanted. An error is an ErrUnreadable.
func (s *Struct[T]) Read(event *Event) (T, error) {
	if event.Type != s.EventType {
		return T{}, fmt.Errorf("%w: it is a %v, wanted a %v", ErrUnreadable, event.Type, s.EventType)
	}
	root, err := event.Root()
	return T(root), err
}

// Opaque is an event type that serializes itself: its messages are bytes.
type Opaque struct{ *EventType }

// BindOpaque makes an opaque event type. All endpoints must use the same type id for it.
func BindOpaque(typeID uint64, name string) *Opaque {
	row := session.Row{TypeID: typeID, Kind: wirecapnp.Kind_opaque, Name: name}
	return &Opaque{&EventType{core: session.Type{Row: row}}}
}

// New builds a message.
func (o *Opaque) New(data []byte) (*Message, error) {
	built, segment, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		return nil, err
	}
	defer built.Release()
	root, err := wirecapnp.NewRootOpaque(segment)
	if err != nil {
		return nil, err
	}
	if err := root.SetData(data); err != nil {
		return nil, err
	}
	return o.Encode(built)
}

// Read returns the bytes of a received event of this type; they lie in the event's own memory.
func (o *Opaque) Read(event *Event) ([]byte, error) {
	if event.Type != o.EventType {
		return nil, fmt.Errorf("%w: it is a %v, wanted a %v", ErrUnreadable, event.Type, o.EventType)
	}
	root, err := event.Root()
	if err != nil {
		return nil, err
	}
	data, err := wirecapnp.Opaque(root).Data()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return data, nil
}

// Message is an encoded event, request or response, ready to be sent any number of times.
type Message struct {
	eventType *EventType

	mu sync.Mutex
	// frame has room for the header; the header names wireID, unless that is 0.
	frame  []byte
	wireID uint16
}

// Encode makes a message out of one that was built with the Cap'n Proto library, whose root is a struct of this type.
// The bytes are copied.
func (t *EventType) Encode(built *capnp.Message) (*Message, error) {
	frame, err := wire.Encode(wire.Event, 0, 0, built)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", t, err)
	}
	return &Message{eventType: t, frame: frame}, nil
}

// Type of the message.
func (m *Message) Type() *EventType { return m.eventType }

// Size is the number of bytes that the message takes on the wire.
func (m *Message) Size() int { return len(m.frame) }

// eventFrame returns the frame of an event under a wire id. It is shared: nobody changes it.
func (m *Message) eventFrame(wireID uint16) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wireID == 0 {
		m.wireID = wireID
		wire.PutHeader(m.frame, wire.Event, wireID, 0)
	}
	if m.wireID == wireID {
		return m.frame
	}
	// Two endpoints of this process number the type differently.
	frame := append([]byte(nil), m.frame...)
	wire.PutHeader(frame, wire.Event, wireID, 0)
	return frame
}

// ownFrame returns a copy of the frame for a header of its own.
func (m *Message) ownFrame() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]byte(nil), m.frame...)
}

// Event is a received event, request or response. It may be kept, and read by several goroutines.
type Event struct {
	Type *EventType
	// From is the name of the peer that sent it.
	From  string
	frame []byte
}

// Size is the number of bytes that it took on the wire.
func (e *Event) Size() int { return len(e.frame) }

// Open returns a reader of the library over the received bytes; nothing is copied. Each call gives one with a fresh
// traversal limit.
func (e *Event) Open() (*capnp.Message, error) {
	opened, err := wire.Open(e.frame)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return opened, nil
}

// Root returns the root of the message, from a reader of its own.
func (e *Event) Root() (capnp.Struct, error) {
	opened, err := e.Open()
	if err != nil {
		return capnp.Struct{}, err
	}
	root, err := wire.Root(opened)
	if err != nil {
		return capnp.Struct{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return root, nil
}

// Guard calls read and turns a panic into an error that is an ErrUnreadable. The library and its generated getters
// panic where a union has another member, where an index is out of bounds, and in BitList.At from element 4,194,304
// on; a program that reads what strangers sent should not end by it.
func Guard(read func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: panic: %v", ErrUnreadable, r)
		}
	}()
	return read()
}

// ErrUnreadable: the fields of a received message cannot be read.
var ErrUnreadable = errors.New("a received message cannot be read")
