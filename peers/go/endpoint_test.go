package peer_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	peer "lahja-capn.example/peer"
	. "lahja-capn.example/peer/conformance"
	"lahja-capn.example/peer/conformance/events"
)

func TestEventsArriveInOrderBothWays(t *testing.T) {
	const many = 20_000
	s, c := pair(t, nil, nil)
	var wait sync.WaitGroup
	for _, sides := range [][2]*member{{s, c}, {c, s}} {
		from, to := sides[0], sides[1]
		received := subscribe(t, to, Count)
		wait.Add(2)
		go func() {
			defer wait.Done()
			for number := range uint64(many) {
				if err := from.Broadcast(within(t), countOf(t, number)); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		go func() {
			defer wait.Done()
			for wanted := range uint64(many) {
				event, err := received.Next(within(t))
				if err != nil {
					t.Error(err)
					return
				}
				count, err := Count.Read(event)
				if err != nil || count.Number() != wanted || event.From != from.Name() {
					t.Errorf("got %d of %s, %v; wanted %d of %s", count.Number(), event.From, err, wanted, from.Name())
					return
				}
			}
		}()
	}
	wait.Wait()
}

func TestALargeEventArrivesWhole(t *testing.T) {
	s, c := pair(t, nil, nil)
	received := subscribe(t, s, Blob)
	data := make([]byte, 5<<20)
	for i := range data {
		data[i] = byte(i * 31)
	}
	message, err := Blob.New(func(b events.Blob) error { return b.SetData(data) })
	ok(t, err)
	// Larger than the peer's window, and than any buffer.
	ok(t, c.Broadcast(within(t), message))
	ok(t, c.Broadcast(within(t), message))
	for range 2 {
		event, err := received.Next(within(t))
		ok(t, err)
		blob, err := Blob.Read(event)
		ok(t, err)
		if got, err := blob.Data(); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes arrived, %v", len(got), err)
		}
	}
}

func TestWhoDoesNotTakeEventsSlowsTheSenderDownAndNothingIsLost(t *testing.T) {
	const many = 2_000
	s, c := pair(t, func(config *peer.Config) { config.EventCredit = 2_000 },
		func(config *peer.Config) { config.QueueBytes = 2_000 })
	received := subscribe(t, s, Count)
	sent := make(chan error, 1)
	go func() {
		for number := range uint64(many) {
			if err := c.Broadcast(within(t), countOf(t, number)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	deadline := time.Now().Add(patience)
	for !c.Stats("server").WaitingForCredit {
		if time.Now().After(deadline) {
			t.Fatal("the sender never waited for credit")
		}
		runtime.Gosched()
	}
	// Frames of 40 bytes: 50 go before the balance is not above 0.
	if got := c.Stats("server").SentEvents; got != 50 {
		t.Errorf("%d events were sent on credit of 2000 bytes, wanted 50", got)
	}
	select {
	case err := <-sent:
		t.Fatalf("the sender did not wait: %v", err)
	default:
	}
	// Requests go on meanwhile.
	ok(t, s.Handle(Ask, twice))
	ok(t, s.Acknowledged(within(t)))
	_, err := c.Request(within(t), ask(t, 1, events.Mode_answer), Answer)
	ok(t, err)
	for wanted := range uint64(many) {
		if got := next(t, received); got != wanted {
			t.Fatalf("got %d, wanted %d", got, wanted)
		}
	}
	ok(t, <-sent)
}

func TestAnEventThatWaitsInItsChannelIsNotTaken(t *testing.T) {
	s, c := pair(t, func(config *peer.Config) { config.EventCredit = 40 }, nil)
	received := subscribe(t, s, Count)
	channel := received.Events(within(t))
	ok(t, c.Broadcast(within(t), countOf(t, 0)))
	ok(t, c.Broadcast(within(t), countOf(t, 1)))
	// A round trip behind them: if the first event's credit had come back, it would be here.
	ok(t, s.Handle(Ask, twice))
	ok(t, s.Acknowledged(within(t)))
	for range 10 {
		_, err := c.Request(within(t), ask(t, 1, events.Mode_answer), Answer)
		ok(t, err)
	}
	if got := c.Stats("server").SentEvents; got != 1 {
		t.Errorf("%d events were sent before one was taken", got)
	}
	<-channel
	<-channel
}

func TestAPeerThatTakesNothingIsDisconnectedWhenItsQueueIsFull(t *testing.T) {
	s, c := pair(t, func(config *peer.Config) { config.EventCredit = 400 }, func(config *peer.Config) {
		config.QueueBytes = 400
		config.TooSlow = 50 * time.Millisecond
	})
	subscribe(t, s, Count)
	c.toldThat("subscribed", func(n peer.Notice) bool { return n.Kind == peer.PeerSubscribed && n.TypeID == Count.TypeID() })
	for number := uint64(0); len(c.Peers()) > 0; number++ {
		ok(t, c.Broadcast(within(t), countOf(t, number)))
	}
	if down := c.told(peer.PeerDown); down.Code != "tooSlow" || down.ByPeer {
		t.Errorf("got %+v", down)
	}
	if down := s.told(peer.PeerDown); down.Code != "tooSlow" || !down.ByPeer {
		t.Errorf("got %+v", down)
	}
}

func TestUnsubscribedEventsDoNotCome(t *testing.T) {
	s, c := pair(t, nil, nil)
	received := subscribe(t, s, Count, Late)
	ok(t, c.Broadcast(within(t), countOf(t, 1)))
	if next(t, received) != 1 {
		t.Error("the first did not come")
	}
	received.Remove(Count)
	ok(t, s.Acknowledged(within(t)))
	c.toldThat("unsubscribed", func(n peer.Notice) bool { return n.Kind == peer.PeerUnsubscribed && n.TypeID == Count.TypeID() })
	ok(t, c.Broadcast(within(t), countOf(t, 2)))
	late, err := Late.New(func(l events.Late) error { return l.SetText("late") })
	ok(t, err)
	ok(t, c.Broadcast(within(t), late))
	event, err := received.Next(within(t))
	ok(t, err)
	if event.Type != Late.EventType || c.Stats("server").SentEvents != 2 {
		t.Errorf("got a %v; %d were sent", event.Type, c.Stats("server").SentEvents)
	}
}

func TestEachSubscriptionGetsEachEventAndTheCreditComesBackOnce(t *testing.T) {
	s, c := pair(t, func(config *peer.Config) { config.EventCredit = 40 }, nil)
	one, two := subscribe(t, s, Count), subscribe(t, s, Count)
	all, err := s.SubscribeAll()
	ok(t, err)
	ok(t, s.Acknowledged(within(t)))
	for number := range uint64(20) {
		ok(t, c.Broadcast(within(t), countOf(t, number)))
	}
	for wanted := range uint64(20) {
		for _, received := range []*peer.Subscription{one, two, all} {
			if got := next(t, received); got != wanted {
				t.Fatalf("got %d, wanted %d", got, wanted)
			}
		}
	}
	// Closing one with events in it gives their credit back too.
	ok(t, c.Broadcast(within(t), countOf(t, 20)))
	ok(t, c.Broadcast(within(t), countOf(t, 21)))
	if next(t, one) != 20 || next(t, two) != 20 {
		t.Error("20 did not come")
	}
	all.Close()
	if next(t, one) != 21 {
		t.Error("21 did not come")
	}
	if _, err := all.Next(within(t)); !errors.Is(err, peer.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestTheCreditOfAnEventComesBackWhenItsLastSubscriptionTookIt(t *testing.T) {
	s, c := pair(t, func(config *peer.Config) { config.EventCredit = 40 }, nil)
	one, two := subscribe(t, s, Count), subscribe(t, s, Count)
	ok(t, s.Handle(Ask, twice))
	ok(t, s.Acknowledged(within(t)))
	ok(t, c.Broadcast(within(t), countOf(t, 0)))
	ok(t, c.Broadcast(within(t), countOf(t, 1)))
	next(t, one)
	for range 10 { // credit would be here before the answers
		_, err := c.Request(within(t), ask(t, 1, events.Mode_answer), Answer)
		ok(t, err)
	}
	if got := c.Stats("server").SentEvents; got != 1 {
		t.Errorf("%d events were sent before both subscriptions had taken the first", got)
	}
	next(t, two)
	if next(t, one) != 1 || next(t, two) != 1 {
		t.Error("the second did not come")
	}
}

func TestEventsThatOnlyAHandlerMadeComeAreSkippedAndTheirCreditReturned(t *testing.T) {
	s, c := pair(t, func(config *peer.Config) { config.EventCredit = 100 }, func(config *peer.Config) { config.QueueBytes = 100 })
	ok(t, s.Handle(Ask, twice))
	ok(t, s.Acknowledged(within(t)))
	for number := range uint64(50) {
		ok(t, c.Broadcast(within(t), ask(t, number, events.Mode_answer)))
	}
	_, err := c.Request(within(t), ask(t, 1, events.Mode_answer), Answer)
	ok(t, err)
}

func TestAWindowOfNoneLetsNothingPass(t *testing.T) {
	s, c := pair(t, func(config *peer.Config) { config.EventCredit = peer.None }, nil)
	subscribe(t, s, Count)
	ok(t, c.Broadcast(within(t), countOf(t, 1)))
	ok(t, s.Handle(Ask, twice))
	ok(t, s.Acknowledged(within(t)))
	_, err := c.Request(within(t), ask(t, 1, events.Mode_answer), Answer)
	ok(t, err)
	if stats := c.Stats("server"); stats.SentEvents != 0 || !stats.WaitingForCredit {
		t.Errorf("got %+v", stats)
	}
	c.Disconnect("server") // else closing waits for the queue
}

func TestOneMessageGoesOutUnderTheWireIDOfEachEndpoint(t *testing.T) {
	server, path := join(t, "server", nil), place(t)
	ok(t, server.Listen(path))
	received := subscribe(t, server, Count)
	message := countOf(t, 7)
	for name, types := range map[string][]peer.AnyType{"one": {Count, Late}, "two": {Late, Count}} {
		c := join(t, name, func(config *peer.Config) { config.Types = types })
		ok(t, c.Connect(within(t), "server", path))
		for range 2 {
			ok(t, c.Broadcast(within(t), message))
			if next(t, received) != 7 {
				t.Errorf("%s sent another event", name)
			}
		}
	}
}

func TestOpaqueEventsPass(t *testing.T) {
	s, c := pair(t, nil, nil)
	note := peer.BindOpaque(0x1234567812345678, "test.Note")
	received := subscribe(t, s, note)
	message, err := note.New([]byte("bytes"))
	ok(t, err)
	ok(t, c.WaitForSubscriber(within(t), note))
	ok(t, c.Broadcast(within(t), message))
	event, err := received.Next(within(t))
	ok(t, err)
	if data, err := note.Read(event); err != nil || string(data) != "bytes" {
		t.Errorf("got %q, %v", data, err)
	}
	if _, err := Count.Read(event); !errors.Is(err, peer.ErrUnreadable) {
		t.Errorf("it was read as a Count: %v", err)
	}
}

func TestAnEventOverThePeersLimitIsAnErrorAndNotSent(t *testing.T) {
	s, c := pair(t, func(config *peer.Config) { config.FrameLimit = 1024 }, nil)
	subscribe(t, s, Blob, Count)
	message, err := Blob.New(func(b events.Blob) error { return b.SetData(make([]byte, 2000)) })
	ok(t, err)
	var tooLarge *peer.FrameTooLarge
	if err := c.Broadcast(within(t), message); !errors.As(err, &tooLarge) || tooLarge.Limit != 1024 || tooLarge.Size != message.Size() {
		t.Errorf("got %v", err)
	}
	ok(t, c.Broadcast(within(t), countOf(t, 1)))
}

func TestCloseSendsWhatIsQueuedAndLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	path := place(t)
	s, c := join(t, "server", nil), join(t, "client", nil)
	ok(t, s.Listen(path))
	received := subscribe(t, s, Count)
	ok(t, c.Connect(within(t), "server", path))
	ok(t, c.WaitForSubscriber(within(t), Count))
	for number := range uint64(1000) {
		ok(t, c.Broadcast(within(t), countOf(t, number)))
	}
	ok(t, c.Close(within(t)))
	for wanted := range uint64(1000) {
		if got := next(t, received); got != wanted {
			t.Fatalf("got %d, wanted %d", got, wanted)
		}
	}
	if down := s.told(peer.PeerDown); down.Code != "shutdown" || !down.ByPeer {
		t.Errorf("got %+v", down)
	}
	ok(t, s.Close(within(t)))
	if _, err := received.Next(within(t)); !errors.Is(err, peer.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	for _, err := range []error{c.Broadcast(within(t), countOf(t, 0)), s.Listen(path), c.Connect(within(t), "server", path)} {
		if !errors.Is(err, peer.ErrClosed) {
			t.Errorf("got %v, wanted ErrClosed", err)
		}
	}
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
		runtime.Gosched()
	}
}

func TestListenReplacesWhatTheDeadLeftAndNothingElse(t *testing.T) {
	path := place(t)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	ok(t, err)
	dead.SetUnlinkOnClose(false)
	ok(t, dead.Close())
	s := join(t, "server", nil)
	ok(t, s.Listen(path))
	if found, err := os.Stat(path); err != nil || found.Mode().Perm() != 0o600 {
		t.Errorf("permissions %v, %v", found.Mode(), err)
	}
	if err := join(t, "other", nil).Listen(path); err == nil || !strings.Contains(err.Error(), "another process serves there") {
		t.Errorf("got %v", err)
	}
	c := join(t, "client", nil)
	ok(t, c.Connect(within(t), "server", path))
	file := path + "file"
	ok(t, os.WriteFile(file, []byte("precious"), 0o600))
	if err := s.Listen(file); err == nil {
		t.Error("a file was replaced")
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestConnectWaitsForTheSocketToAppear(t *testing.T) {
	path := place(t)
	c := join(t, "client", nil)
	connected := make(chan error, 1)
	go func() { connected <- c.Connect(within(t), "server", path) }()
	s := join(t, "server", nil)
	ok(t, s.Listen(path))
	ok(t, <-connected)
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := c.Connect(short, "nobody", path+"2"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestBadConfigurationsAreRefusedByName(t *testing.T) {
	for wanted, config := range map[string]peer.Config{
		"cannot be called": {Name: "a b"},
		"FrameLimit":       {Name: "a", FrameLimit: 1000},
		"credit window":    {Name: "a", EventCredit: 1 << 63},
		"Keepalive":        {Name: "a", Keepalive: time.Microsecond},
		"Misses":           {Name: "a", Misses: 1},
		"TooSlow":          {Name: "a", TooSlow: -1},
	} {
		if _, err := peer.New(config); err == nil || !strings.Contains(err.Error(), wanted) {
			t.Errorf("%q: got %v", wanted, err)
		}
	}
}
