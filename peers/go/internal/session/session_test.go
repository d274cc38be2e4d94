package session

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"lahja-capn.example/peer/internal/wire"
	"lahja-capn.example/peer/internal/wirecapnp"
)

func TestTheExamplesOfTheSpecificationAreReadAsItSays(t *testing.T) {
	table := NewTable()
	table.rows = []TableRow{{WireID: 1, Row: Row{TypeID: 0xc1d2e3f4a5b69788, Name: "example.capnp:Tick",
		Layout: []uint32{0xe591d0f9, 0x19e37638, 0x8945600e, 0xb5ca3fba}}}}
	local := newSide("meter", func(l *Local) {
		l.Implementation, l.Version, l.EventCredit, l.RequestCredit = "example", "1", Unlimited, 65536
		for i := range l.Instance {
			l.Instance[i] = byte(i)
		}
	}).local
	s := New(local, table, true, "srv", start)
	frame := s.Pull(1)[0]
	message, err := DecodeControl(frame)
	if err != nil {
		t.Fatal(err)
	}
	hello := message.(*Hello)
	if hello.Name != "meter" || hello.EventCredit != Unlimited || hello.RequestCredit != 65536 || hello.FrameLimit != 1<<20 ||
		string(hello.Instance) != string(local.Instance[:]) || len(hello.Types) != 1 || !hello.Types[0].equal(&table.rows[0].Row) {
		t.Errorf("got %+v", hello)
	}
	// The specification's own hello has 248 bytes, and so has ours: one encoding is as good as another.
	if len(frame) != 0xf4+4 {
		t.Errorf("our hello has %d bytes", len(frame))
	}
}

func TestWhatIsOverTheBalanceWaitsForCredit(t *testing.T) {
	tick := eventType(1)
	a, b := connected(t, []uint64{1}, func(_, acceptor *Local) { acceptor.EventCredit = 100 }, tick)
	for range 4 {
		if err := a.QueueEvent(tick, content(t, wire.Event, 1, 0, 64)); err != nil {
			t.Fatal(err)
		}
	}
	pump(a, b, nil, nil)
	if n := count[Arrived](b.seen); n != 2 || !a.WaitingForCredit() {
		t.Fatalf("%d arrived, waiting %v: wanted two, of a window of 100", n, a.WaitingForCredit())
	}
	b.ReturnEventCredit(48)
	if b.HasOutput() {
		t.Error("less than half of the window was told")
	}
	b.ReturnEventCredit(16)
	pump(a, b, nil, nil)
	if n := count[Arrived](b.seen); n != 3 {
		t.Errorf("%d arrived, wanted 3 after 64 bytes of credit", n)
	}
}

func TestCreditThatIsNotThereEndsTheConnection(t *testing.T) {
	tick := eventType(1)
	a, b := connected(t, []uint64{1}, func(_, acceptor *Local) { acceptor.EventCredit = 64 }, tick)
	b.deliver(content(t, wire.Event, 1, 0, 64))
	if b.State() != Up {
		t.Fatal("the first was refused")
	}
	b.deliver(content(t, wire.Event, 1, 0, 64))
	pump(a, b, nil, nil)
	if got := ending(t, a); got.CodeName() != "creditExceeded" || !got.ByPeer {
		t.Errorf("got %+v", got)
	}
}

func TestABalanceNeverLeavesItsRange(t *testing.T) {
	for _, c := range []struct {
		balance int64
		refill  uint64
		ok      bool
	}{
		{0, math.MaxInt64, true}, {1, math.MaxInt64, false}, {-5, math.MaxInt64, true}, {0, math.MaxInt64 + 1, false},
		{math.MaxInt64, 0, true}, {math.MaxInt64, 1, false}, {0, math.MaxUint64, false},
	} {
		w := sendWindow{balance: c.balance}
		if err := w.refill(c.refill); (err == nil) != c.ok {
			t.Errorf("%d + %d: %v", c.balance, c.refill, err)
		}
	}
	w := sendWindow{unlimited: true}
	if err := w.refill(math.MaxUint64); err != nil {
		t.Error(err)
	}
}

func TestOtherFramesOvertakeEventsThatHaveNoCredit(t *testing.T) {
	tick := eventType(1)
	a, b := connected(t, []uint64{1}, func(_, acceptor *Local) { acceptor.EventCredit = 0 }, tick)
	b.serves[1] = true
	if err := a.QueueEvent(tick, content(t, wire.Event, 1, 0, 64)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.QueueRequest(tick, 1, content(t, wire.Request, 1, 1, 64)); err != nil {
		t.Fatal(err)
	}
	b.Ping()
	pump(a, b, nil, nil)
	if count[Arrived](b.seen) != 1 || b.seen[0].(Arrived).Number != 1 {
		t.Errorf("got %v, wanted the request", b.seen)
	}
}

func TestUnsubscribingDropsWhatIsQueuedBeforeItIsAcknowledged(t *testing.T) {
	tick, tock := eventType(1), eventType(2)
	a, b := connected(t, []uint64{1, 2}, func(_, acceptor *Local) { acceptor.EventCredit = 0 }, tick, tock)
	for range 3 {
		_ = a.QueueEvent(tick, content(t, wire.Event, 1, 0, 64))
		_ = a.QueueEvent(tock, content(t, wire.Event, 2, 0, 64))
	}
	sequence := b.Subscribe(nil, []uint64{1}, false, start)
	pump(a, b, nil, nil)
	if b.Acked() != sequence {
		t.Fatalf("acknowledged %d, wanted %d", b.Acked(), sequence)
	}
	b.ReturnEventCredit(10000)
	pump(a, b, nil, nil)
	for _, event := range b.seen {
		if arrived, ok := event.(Arrived); ok && arrived.Type != tock {
			t.Error("an event came that was unsubscribed before the acknowledgement")
		}
	}
	if count[Arrived](b.seen) != 3 || b.Counters.Skipped != 0 {
		t.Errorf("%d arrived, %d skipped; wanted the 3 of the other type", count[Arrived](b.seen), b.Counters.Skipped)
	}
}

func TestATypeThatIsFirstUsedLaterIsDeclaredBefore(t *testing.T) {
	a, b := connected(t, nil, nil)
	late := eventType(7, 1, 2)
	a.know(late)
	b.know(late)
	b.Subscribe([]uint64{7}, nil, false, start)
	pump(a, b, nil, nil)
	if !a.Wants(late) {
		t.Fatal("the subscription did not arrive")
	}
	if err := a.QueueEvent(late, content(t, wire.Event, 1, 0, 64)); err != nil {
		t.Fatal(err)
	}
	pump(a, b, nil, nil)
	if count[Arrived](b.seen) != 1 || b.State() != Up {
		t.Errorf("got %v", b.seen)
	}
}

func TestATableThatDoesNotFitHelloGoesIntoDeclares(t *testing.T) {
	a, b := newSide("a", nil), newSide("b", nil)
	layout := make([]uint32, 5000)
	for id := uint64(1); id <= 150; id++ {
		a.know(eventType(id, layout...))
	}
	a.Session = New(a.local, a.table, true, "b", start)
	b.Session = New(b.local, b.table, false, "", start)
	pump(a, b, nil, nil)
	if b.State() != Up || len(b.peerTable.wireIDs) != 150 {
		t.Errorf("%d types arrived: %v", len(b.peerTable.wireIDs), b.seen)
	}
}

func TestAnotherLayoutDisablesTheTypeOnBothSidesAndNothingElse(t *testing.T) {
	inner := Row{TypeID: 50, Name: "inner", Layout: []uint32{1, 2, 3}}
	other := Row{TypeID: 50, Name: "inner", Layout: []uint32{1, 9}}
	a, b := newSide("a", nil), newSide("b", nil)
	mine, theirs := eventType(1, 7), eventType(1, 7)
	mine.Reachable, theirs.Reachable = []Row{inner}, []Row{other}
	fine := eventType(2, 1)
	a.know(mine, fine)
	b.know(theirs, fine)
	a.Session = New(a.local, a.table, true, "b", start)
	b.Session = New(b.local, b.table, false, "", start)
	pump(a, b, nil, []uint64{1, 2})
	for _, s := range []*side{a, b} {
		if count[TypeDisabled](s.seen) != 1 {
			t.Errorf("%s saw %v, wanted one type disabled", s.local.Name, s.seen)
		}
	}
	if a.Wants(mine) || !a.Wants(fine) {
		t.Errorf("wants %v %v", a.Wants(mine), a.Wants(fine))
	}
	if found := a.Incompatible(mine); found == nil || found.Ordinal != 1 || found.StructID != 50 {
		t.Errorf("got %v", found)
	}
}

func TestAVerdictIsFoundAgainWhenRowsArriveThatMatter(t *testing.T) {
	table := newPeerTable()
	mine := eventType(1)
	mine.Reachable = []Row{{TypeID: 50, Layout: []uint32{1}}}
	if _, err := table.add([]TableRow{{WireID: 1, Row: mine.Row}}); err != nil {
		t.Fatal(err)
	}
	if found, _ := table.verdict(mine); found != nil {
		t.Fatal(found)
	}
	affected, err := table.add([]TableRow{{Row: Row{TypeID: 50, Layout: []uint32{2}}}})
	if err != nil || !slices.Contains(affected, 1) {
		t.Errorf("affected %v, %v", affected, err)
	}
	if found, fresh := table.verdict(mine); found == nil || !fresh {
		t.Error("the type is still thought compatible")
	}
}

func TestATableHasItsBounds(t *testing.T) {
	table := newPeerTable()
	var rows []TableRow
	for id := uint64(1); id <= maxTableStructs; id++ {
		rows = append(rows, TableRow{Row: Row{TypeID: id}})
	}
	if _, err := table.add(rows); err != nil {
		t.Fatal(err)
	}
	// Repeating, and giving a wire id, need no room.
	if _, err := table.add([]TableRow{rows[0], {WireID: 1, Row: rows[1].Row}}); err != nil {
		t.Error(err)
	}
	var refusal *wire.Error
	_, err := table.add([]TableRow{{Row: Row{TypeID: 1 << 40}}})
	if !errors.As(err, &refusal) || refusal.Code != wirecapnp.GoodbyeCode_invalidTable {
		t.Errorf("got %v", err)
	}
}

func TestRequestsAreAnsweredOnceAndLateAnswersCounted(t *testing.T) {
	ask := eventType(1)
	a, b := connected(t, []uint64{1}, nil, ask)
	b.serves[1] = true
	first, _ := a.QueueRequest(ask, 1, content(t, wire.Request, 1, 1, 40))
	second, _ := a.QueueRequest(ask, 1, content(t, wire.Request, 1, 1, 40))
	pump(a, b, nil, nil)
	a.Forget(first)
	b.Respond(first, ask, 1, content(t, wire.Response, 1, 1, 40))
	b.Respond(second, ask, 1, content(t, wire.Response, 1, 1, 40))
	b.Respond(second, ask, 1, content(t, wire.Response, 1, 1, 40))
	b.Fail(second, wirecapnp.FailedCode_handlerRaised, "", "")
	pump(a, b, nil, nil)
	if count[Answered](a.seen) != 1 || a.Counters.Late != 1 || count[AnsweredFailed](a.seen) != 0 {
		t.Errorf("saw %v, %d late", a.seen, a.Counters.Late)
	}
}

func TestMoreOpenRequestsThanAllowedAreOverloaded(t *testing.T) {
	ask := eventType(1)
	a, b := connected(t, []uint64{1}, func(_, acceptor *Local) { acceptor.OpenRequests = 2 }, ask)
	b.serves[1] = true
	for range 3 {
		_, _ = a.QueueRequest(ask, 1, content(t, wire.Request, 1, 1, 40))
	}
	pump(a, b, nil, nil)
	if count[Arrived](b.seen) != 2 || count[AnsweredFailed](a.seen) != 1 ||
		a.seen[0].(AnsweredFailed).Code != wirecapnp.FailedCode_overloaded {
		t.Fatalf("got %v and %v", b.seen, a.seen)
	}
	b.Fail(1, wirecapnp.FailedCode_handlerRaised, "", "")
	_, _ = a.QueueRequest(ask, 1, content(t, wire.Request, 1, 1, 40))
	pump(a, b, nil, nil)
	if count[Arrived](b.seen) != 3 {
		t.Error("an answered request still counts as open")
	}
}

func TestAForgottenRequestThatWaitsForCreditIsNotSent(t *testing.T) {
	ask := eventType(1)
	a, b := connected(t, []uint64{1}, func(_, acceptor *Local) { acceptor.RequestCredit = 0 }, ask)
	b.serves[1] = true
	number, _ := a.QueueRequest(ask, 1, content(t, wire.Request, 1, 1, 40))
	a.Forget(number)
	b.ReturnRequestCredit(1000)
	pump(a, b, nil, nil)
	if len(b.seen) != 0 {
		t.Errorf("saw %v", b.seen)
	}
}

func TestAnAnswerOverTheLimitFailsTheRequest(t *testing.T) {
	ask := eventType(1)
	a, b := connected(t, []uint64{1}, func(connector, _ *Local) { connector.FrameLimit = 1024 }, ask)
	b.serves[1] = true
	_, _ = a.QueueRequest(ask, 1, content(t, wire.Request, 1, 1, 40))
	pump(a, b, nil, nil)
	b.Respond(1, ask, 1, content(t, wire.Response, 1, 1, 1032))
	pump(a, b, nil, nil)
	failed := a.seen[0].(AnsweredFailed)
	if failed.Code != wirecapnp.FailedCode_handlerRaised || failed.TypeName != "FrameTooLarge" {
		t.Errorf("got %+v", failed)
	}
	var tooLarge *TooLarge
	if err := b.QueueEvent(ask, content(t, wire.Event, 1, 0, 1032)); !errors.As(err, &tooLarge) || tooLarge.Limit != 1024 {
		t.Errorf("got %v", err)
	}
}

func TestRefusalsNobodyTakesEndTheConnection(t *testing.T) {
	// With an unlimited window only this bounds the memory that they take.
	a, b := connected(t, nil, func(_, acceptor *Local) { acceptor.RequestCredit, acceptor.AnswerBytes = Unlimited, 10000 }, eventType(1))
	for number := uint64(1); number < 1000 && b.State() == Up; number++ {
		b.deliver(content(t, wire.Request, 1, number, 40))
	}
	pump(a, b, nil, nil)
	if got := ending(t, a); got.CodeName() != "tooSlow" {
		t.Errorf("got %+v", got)
	}
}

func TestPingsAcksAndCreditDoNotPileUp(t *testing.T) {
	tick := eventType(1)
	a, b := connected(t, []uint64{1}, func(_, acceptor *Local) { acceptor.EventCredit = 64 }, tick)
	for range 1000 {
		a.deliver(EncodeControl(&Ping{}))
		b.Subscribe([]uint64{1}, nil, false, start)
	}
	a.deliver(b.Pull(1 << 20)...)
	if frames := a.Pull(1 << 20); len(frames) != 2 {
		t.Errorf("%d frames, wanted a pong and an acknowledgement", len(frames))
	}
}

func TestNothingIsSaidBeforeTheOwnerHasDecided(t *testing.T) {
	a, b := newSide("a", nil), newSide("b", nil)
	a.Session = New(a.local, a.table, true, "b", start)
	b.Session = New(b.local, b.table, false, "", start)
	b.deliver(a.Pull(1)...)
	b.deliver(EncodeControl(&Ping{}), EncodeControl(&Subscriptions{Sequence: 1, AckWanted: true}))
	if frames := b.Pull(1); len(frames) > 0 || b.HasOutput() {
		t.Errorf("%d frames before the hello", len(frames))
	}
	b.take(nil)
	var kinds []string
	for _, frame := range b.Pull(1 << 20) {
		message, err := DecodeControl(frame)
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, message.which().String())
	}
	if got := strings.Join(kinds, " "); got != "hello subscriptions pong subscriptionsAck" {
		t.Errorf("got %s", got)
	}
}

func TestASilentPeerIsAskedTwiceAndThenGivenUp(t *testing.T) {
	a, b := connected(t, nil, func(connector, _ *Local) { connector.Keepalive = time.Minute })
	for i, wanted := range []State{Up, Up, Closing} {
		deadline := a.Deadline()
		if want := start.Add(time.Duration(i+1) * time.Minute); !deadline.Equal(want) {
			t.Fatalf("deadline %v, wanted %v", deadline, want)
		}
		if a.WouldJudge() != (wanted == Closing) {
			t.Errorf("would judge at ask %d: %v", i, a.WouldJudge())
		}
		a.HandleTime(deadline)
		if a.State() != wanted {
			t.Fatalf("ask %d: state %v", i, a.State())
		}
		if frames := a.Pull(1); len(frames) != 1 {
			t.Errorf("ask %d: %d frames", i, len(frames))
		}
	}
	a.take(nil)
	if got := ending(t, a); got.CodeName() != "keepaliveTimeout" || got.ByPeer {
		t.Errorf("got %+v", got)
	}
	_ = b
}

func TestAProcessThatWasStoppedAsksBeforeItJudges(t *testing.T) {
	a, _ := connected(t, nil, func(connector, _ *Local) { connector.Keepalive = time.Minute })
	later := start.Add(24 * time.Hour)
	a.HandleTime(later)
	if a.State() != Up || !a.HasOutput() {
		t.Fatal("it did not ask")
	}
	a.Heard(later.Add(time.Second))
	if want := later.Add(time.Second + time.Minute); !a.Deadline().Equal(want) {
		t.Errorf("deadline %v, wanted %v", a.Deadline(), want)
	}
}

func TestTheHandshakeHasADeadlineAndTheGoodbyeToo(t *testing.T) {
	b := newSide("b", nil)
	b.Session = New(b.local, b.table, false, "", start)
	b.HandleTime(start.Add(10*time.Second - 1))
	if b.State() != Handshake {
		t.Fatal("too early")
	}
	now := start.Add(10 * time.Second)
	b.HandleTime(now)
	b.take(nil)
	if got := ending(t, b); got.CodeName() != "handshakeTimeout" {
		t.Errorf("got %+v", got)
	}
	b.HandleTime(now.Add(2*time.Second - 1))
	if b.State() != Closing {
		t.Error("closed too early")
	}
	b.HandleTime(now.Add(2 * time.Second))
	if b.State() != Closed {
		t.Error("not closed after 2 s")
	}
}

func TestTheLastFrameIsGoodbyeAndWhatWasQueuedIsDropped(t *testing.T) {
	tick := eventType(1)
	a, b := connected(t, []uint64{1}, nil, tick)
	_ = a.QueueEvent(tick, content(t, wire.Event, 1, 0, 64))
	a.Close(wirecapnp.GoodbyeCode_shutdown, strings.Repeat("é", 1000), start)
	frames := a.Pull(1)
	if len(frames) != 1 || !a.SendFinished() || a.Pull(1) != nil {
		t.Fatalf("%d frames, finished %v", len(frames), a.SendFinished())
	}
	b.deliver(frames...)
	b.take(nil)
	got := ending(t, b)
	if got.CodeName() != "shutdown" || !got.ByPeer || len(got.Text) > 1024 || !strings.HasSuffix(got.Text, "é...") {
		t.Errorf("got %+v", got)
	}
	if b.State() != Closed || b.HasOutput() {
		t.Error("a goodbye is not answered")
	}
}

func TestTwoCrossingGoodbyesEndBothSides(t *testing.T) {
	a, b := connected(t, nil, nil)
	a.Close(wirecapnp.GoodbyeCode_shutdown, "a", start)
	b.Close(wirecapnp.GoodbyeCode_replaced, "b", start)
	pump(a, b, nil, nil)
	if got := ending(t, a); got.CodeName() != "shutdown" || got.ByPeer || count[Ended](a.seen) != 1 {
		t.Errorf("a: %v", a.seen)
	}
	if got := ending(t, b); got.CodeName() != "replaced" || got.ByPeer || count[Ended](b.seen) != 1 {
		t.Errorf("b: %v", b.seen)
	}
}
