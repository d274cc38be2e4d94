package session

import (
	"fmt"
	"testing"
	"time"

	"capnproto.org/go/capnp/v3"

	"lahja-capn.example/peer/internal/wire"
)

// side is a session and the events that it gave.
type side struct {
	*Session
	local  *Local
	table  *Table
	types  map[uint64]*Type
	serves map[uint64]bool
	seen   []Event
}

var start = time.Unix(1000, 0)

func newSide(name string, change func(*Local)) *side {
	s := &side{table: NewTable(), types: map[uint64]*Type{}, serves: map[uint64]bool{}}
	s.local = &Local{
		Name: name, Implementation: "test", Version: "1", FrameLimit: 1 << 20, EventCredit: 1 << 20, RequestCredit: 1 << 20,
		OpenRequests: 100, AnswerBytes: 1 << 20, HandshakeTimeout: 10 * time.Second, AckTimeout: 30 * time.Second, CloseTimeout: 2 * time.Second, Misses: 3,
		Find:   func(id uint64) *Type { return s.types[id] },
		Serves: func(id uint64) bool { return s.serves[id] },
	}
	copy(s.local.Instance[:], name)
	if change != nil {
		change(s.local)
	}
	return s
}

func (s *side) know(types ...*Type) {
	for _, t := range types {
		s.types[t.Row.TypeID] = t
		if _, err := s.table.WireID(t); err != nil {
			panic(err)
		}
	}
}

func eventType(id uint64, layout ...uint32) *Type {
	return &Type{Row: Row{TypeID: id, Name: fmt.Sprintf("test:T%d", id), Layout: layout}}
}

// content is a frame of size bytes, at least 32.
func content(t testing.TB, kind wire.Kind, wireID uint16, number uint64, size int) []byte {
	t.Helper()
	built, segment, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err == nil {
		_, err = capnp.NewRootStruct(segment, capnp.ObjectSize{DataSize: capnp.Size(size - 32)})
	}
	if err != nil {
		t.Fatal(err)
	}
	frame, err := wire.Encode(kind, wireID, number, built)
	if err != nil || len(frame) != size {
		t.Fatalf("%d bytes, %v", len(frame), err)
	}
	return frame
}

func (s *side) take(want []uint64) {
	for {
		events := s.TakeEvents()
		if len(events) == 0 {
			return
		}
		for _, event := range events {
			if _, hello := event.(PeerHello); hello {
				s.Accept(want, false, start)
			}
			s.seen = append(s.seen, event)
		}
	}
}

// deliver gives frames to a session.
func (s *side) deliver(frames ...[]byte) {
	for _, frame := range frames {
		header, err := wire.ParseHeader(frame, s.local.FrameLimit)
		if err != nil {
			s.Refuse(err, start)
			return
		}
		s.HandleFrame(header, frame, start)
	}
}

// pump passes frames between two sides until nothing moves; each accepts the other with its wants.
func pump(a, b *side, aWants, bWants []uint64) {
	for moved := true; moved; {
		moved = false
		for _, pair := range [][2]*side{{a, b}, {b, a}} {
			from, to := pair[0], pair[1]
			frames := from.Pull(1 << 20)
			to.deliver(frames...)
			moved = moved || len(frames) > 0
		}
		a.take(aWants)
		b.take(bWants)
	}
}

// connected returns two sides that are up, both of which know types; the acceptor wants wants.
func connected(t *testing.T, wants []uint64, change func(connector, acceptor *Local), types ...*Type) (connector, acceptor *side) {
	t.Helper()
	connector, acceptor = newSide("connector", nil), newSide("acceptor", nil)
	if change != nil {
		change(connector.local, acceptor.local)
	}
	connector.know(types...)
	acceptor.know(types...)
	connector.Session = New(connector.local, connector.table, true, "acceptor", start)
	acceptor.Session = New(acceptor.local, acceptor.table, false, "", start)
	pump(connector, acceptor, nil, wants)
	if connector.State() != Up || acceptor.State() != Up {
		t.Fatalf("not up: %v and %v", connector.seen, acceptor.seen)
	}
	connector.seen, acceptor.seen = nil, nil
	return connector, acceptor
}

func count[T Event](events []Event) int {
	n := 0
	for _, event := range events {
		if _, ok := event.(T); ok {
			n++
		}
	}
	return n
}

func ending(t *testing.T, s *side) Ending {
	t.Helper()
	for _, event := range s.seen {
		if ended, ok := event.(Ended); ok {
			return ended.Ending
		}
	}
	t.Fatalf("%s has not ended: %v", s.local.Name, s.seen)
	return Ending{}
}
