package session

import (
	"testing"
	"time"

	"lahja-capn.example/peer/internal/wire"
)

// window of events or of requests, for tests that hold for both.
type window struct {
	name     string
	limit    func(*Local) *uint64
	send     func(t *testing.T, to *side, number uint64)
	giveBack func(s *side, size int)
}

var windows = []window{
	{"events", func(l *Local) *uint64 { return &l.EventCredit },
		func(t *testing.T, to *side, _ uint64) { to.deliver(content(t, wire.Event, 1, 0, 64)) },
		func(s *side, size int) { s.ReturnEventCredit(size) }},
	{"requests", func(l *Local) *uint64 { return &l.RequestCredit },
		func(t *testing.T, to *side, number uint64) { to.deliver(content(t, wire.Request, 1, number, 64)) },
		func(s *side, size int) { s.ReturnRequestCredit(size) }},
}

// told returns what the credit messages among the frames that a session has to send give back.
func told(t *testing.T, s *side) Credit {
	t.Helper()
	var sum Credit
	for _, frame := range s.Pull(1 << 20) {
		header, err := wire.ParseHeader(frame, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if header.Kind != wire.Control {
			continue
		}
		message, err := DecodeControl(frame)
		if err != nil {
			t.Fatal(err)
		}
		if credit, is := message.(*Credit); is {
			sum.Events += credit.Events
			sum.Requests += credit.Requests
		}
	}
	return sum
}

func TestAPeerWithoutCreditGetsWhatItIsOwedWithinASecondHoweverLittle(t *testing.T) {
	for _, w := range windows {
		t.Run(w.name, func(t *testing.T) {
			tick := eventType(1)
			_, b := connected(t, []uint64{1}, func(_, acceptor *Local) { *w.limit(acceptor) = 1000 }, tick)
			b.serves[1] = true
			// 1000 is enough for 16 of 64.
			for number := range uint64(15) {
				w.send(t, b, number+1)
			}
			w.giveBack(b, 8)
			if !b.Deadline().IsZero() {
				t.Fatalf("a deadline %v while the peer may send", b.Deadline())
			}
			w.send(t, b, 16)
			now := start
			for round := range 3 {
				deadline := b.Deadline()
				if late := deadline.Sub(now); late <= 0 || late > time.Second {
					t.Fatalf("round %d: the deadline comes after %v", round, late)
				}
				if got := told(t, b); got != (Credit{}) {
					t.Fatalf("round %d: %+v was told at once", round, got)
				}
				now = deadline
				b.HandleTime(now)
				if got := told(t, b); got.Events+got.Requests != 8 {
					t.Fatalf("round %d: %+v was told, wanted 8", round, got)
				}
				// Nothing is owed: the next look finds nothing, and is not the last.
				now = b.Deadline()
				b.HandleTime(now)
				if b.HasOutput() {
					t.Fatalf("round %d: told %+v", round, told(t, b))
				}
				w.giveBack(b, 8)
			}
			// The balance was -24, and is 0 now: still nothing may be sent.
			w.giveBack(b, 8)
			b.HandleTime(b.Deadline())
			told(t, b)
			b.HandleTime(b.Deadline())
			if !b.Deadline().IsZero() {
				t.Errorf("it looks again at %v though the peer may send", b.Deadline())
			}
		})
	}
}

func TestAPeerThatDoesNotAcknowledgeSubscriptionsIsGivenUp(t *testing.T) {
	tick := eventType(1)
	a, b := connected(t, nil, nil, tick)
	later := start.Add(time.Hour)
	b.Session.Subscribe([]uint64{1}, nil, false, later)
	// Asked again meanwhile: the first one is still owed.
	b.Session.Subscribe(nil, []uint64{1}, false, later.Add(20*time.Second))
	deadline := b.Deadline()
	if want := later.Add(30 * time.Second); !deadline.Equal(want) {
		t.Fatalf("deadline %v, wanted %v", deadline, want)
	}
	b.HandleTime(deadline)
	if b.State() != Up {
		t.Fatal("it judged at its first look: what lies unread may be the acknowledgement")
	}
	b.HandleTime(b.Deadline())
	pump(a, b, nil, nil)
	if got := ending(t, a); got.CodeName() != "protocolError" || !got.ByPeer {
		t.Errorf("got %+v", got)
	}
	if passed := b.closeDeadline.Sub(later); passed > 34*time.Second {
		t.Errorf("given up after %v", passed)
	}
}

func TestAnAcknowledgementEndsItsDeadline(t *testing.T) {
	tick, tock := eventType(1), eventType(2)
	a, b := connected(t, nil, nil, tick, tock)
	if !b.Deadline().IsZero() {
		t.Fatalf("a deadline %v, though the first subscriptions were acknowledged", b.Deadline())
	}
	b.Session.Subscribe([]uint64{1}, nil, false, start)
	b.HandleTime(b.Deadline())
	b.Session.Subscribe([]uint64{2}, nil, false, start.Add(30*time.Second))
	b.deliver(EncodeControl(&SubscriptionsAck{Sequence: 2}))
	// It has its time for the second from now on.
	if want := start.Add(30 * time.Second); !b.Deadline().Equal(want) || b.ack.late {
		t.Errorf("deadline %v, wanted %v", b.Deadline(), want)
	}
	pump(a, b, nil, nil)
	if !b.Deadline().IsZero() {
		t.Errorf("a deadline %v, though everything was acknowledged", b.Deadline())
	}
}
