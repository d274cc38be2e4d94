package peer_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	peer "lahja-capn.example/peer"
	. "lahja-capn.example/peer/conformance"
	"lahja-capn.example/peer/conformance/events"
)

// serving returns a server that answers Ask with handler, and a client.
func serving(t *testing.T, handler peer.Handler, server func(*peer.Config)) (*member, *member) {
	t.Helper()
	s, c := pair(t, server, nil)
	ok(t, s.Handle(Ask, handler))
	ok(t, s.Acknowledged(within(t)))
	return s, c
}

func TestRequestsAreAnsweredFailedOrTimeOut(t *testing.T) {
	_, c := serving(t, twice, nil)
	for number := range uint64(100) {
		response, err := c.Request(within(t), ask(t, number, events.Mode_answer), Answer)
		ok(t, err)
		if answer, err := Answer.Read(response); err != nil || answer.Number() != 2*number || response.From != "server" {
			t.Fatalf("got %d, %v", answer.Number(), err)
		}
	}
	_, err := c.Request(within(t), ask(t, 1, events.Mode_fail), Answer)
	var failed *peer.RequestFailed
	wanted := peer.RequestFailed{Peer: "server", Code: "handlerRaised", TypeName: "ValueError", Text: "asked to fail"}
	if !errors.As(err, &failed) || *failed != wanted {
		t.Errorf("got %v, wanted %v", err, &wanted)
	}
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Request(short, ask(t, 1, events.Mode_silence), Answer); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Request(within(t), ask(t, 1, events.Mode_answer), Count); !errors.Is(err, peer.ErrWrongAnswer) {
		t.Errorf("got %v", err)
	}
}

func TestAnAnswerAfterTheRequesterGaveUpIsLate(t *testing.T) {
	release := make(chan struct{})
	_, c := serving(t, func(_ context.Context, request *peer.Event) (*peer.Message, error) {
		if asked, _ := Ask.Read(request); asked.Number() == 0 {
			<-release
		}
		return twice(nil, request)
	}, nil)
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Request(short, ask(t, 0, events.Mode_answer), Answer); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	close(release)
	for deadline := time.Now().Add(patience); c.Stats("server").LateAnswers != 1; {
		_, err := c.Request(within(t), ask(t, 1, events.Mode_answer), Answer)
		ok(t, err)
		if time.Now().After(deadline) {
			t.Fatal("the answer was not counted as late")
		}
	}
}

func TestTheCreditOfRequestsComesBack(t *testing.T) {
	_, c := serving(t, twice, func(config *peer.Config) { config.RequestCredit = 100 })
	for number := range uint64(20) {
		_, err := c.Request(within(t), ask(t, number, events.Mode_answer), Answer)
		ok(t, err)
	}
}

func TestAPanicOfAHandlerFailsItsRequestAlone(t *testing.T) {
	_, c := serving(t, func(_ context.Context, request *peer.Event) (*peer.Message, error) {
		if asked, _ := Ask.Read(request); asked.Number() == 0 {
			panic("a fault")
		}
		return twice(nil, request)
	}, nil)
	var failed *peer.RequestFailed
	_, err := c.Request(within(t), ask(t, 0, events.Mode_answer), Answer)
	if !errors.As(err, &failed) || failed.TypeName != "panic" || failed.Text != "a fault" {
		t.Errorf("got %v", err)
	}
	_, err = c.Request(within(t), ask(t, 1, events.Mode_answer), Answer)
	ok(t, err)
}

func TestHandlersRunSideBySideAndNoMoreThanAllowed(t *testing.T) {
	var running, most atomic.Int32
	full := make(chan struct{})
	var once sync.Once
	_, c := serving(t, func(_ context.Context, request *peer.Event) (*peer.Message, error) {
		now := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		if now == 3 {
			once.Do(func() { close(full) })
		}
		<-full
		time.Sleep(2 * time.Millisecond) // a burst of requests comes sooner than the first ones end
		return twice(nil, request)
	}, func(config *peer.Config) { config.Handlers = 3 })
	results := make(chan error)
	for number := range uint64(3) {
		go func() {
			_, err := c.Request(within(t), ask(t, number, events.Mode_answer), Answer)
			results <- err
		}()
	}
	for range 3 {
		ok(t, <-results)
	}
	for number := range uint64(20) {
		go func() {
			_, err := c.Request(within(t), ask(t, number, events.Mode_answer), Answer)
			results <- err
		}()
	}
	for range 20 {
		ok(t, <-results)
	}
	if most.Load() != 3 {
		t.Errorf("%d ran at a time, wanted 3", most.Load())
	}
}

func TestNobodyToAskIsKnownAtOnce(t *testing.T) {
	s, c := pair(t, nil, nil)
	if _, err := c.Request(within(t), ask(t, 1, events.Mode_answer), Answer); !errors.Is(err, peer.ErrNobody) {
		t.Errorf("got %v", err)
	}
	// A subscription to the events of the type is no handler, and the peer that has it says so.
	subscribe(t, s, Ask)
	var failed *peer.RequestFailed
	if _, err := c.Request(within(t), ask(t, 1, events.Mode_answer), Answer); !errors.As(err, &failed) || failed.Code != "noHandler" {
		t.Errorf("got %v", err)
	}
}

func TestARequestIsLostWithItsConnection(t *testing.T) {
	arrived := make(chan struct{})
	gone := make(chan struct{})
	s, c := serving(t, func(ctx context.Context, _ *peer.Event) (*peer.Message, error) {
		close(arrived)
		<-ctx.Done()
		close(gone)
		return nil, ctx.Err()
	}, nil)
	result := make(chan error)
	go func() {
		_, err := c.Request(within(t), ask(t, 1, events.Mode_answer), Answer)
		result <- err
	}()
	<-arrived
	s.Disconnect("client")
	if err := <-result; !errors.Is(err, peer.ErrDisconnected) {
		t.Errorf("got %v", err)
	}
	<-gone
}

// star returns a client that is connected to servers, each of which answers with its handler.
func star(t *testing.T, handlers ...peer.Handler) *member {
	t.Helper()
	c := join(t, "client", nil)
	for i, handler := range handlers {
		s := join(t, "server"+string(rune('a'+i)), nil)
		path := place(t)
		ok(t, s.Listen(path))
		ok(t, s.Handle(Ask, handler))
		ok(t, c.Connect(within(t), s.Name(), path))
	}
	return c
}

func TestTheFirstResponseWinsAndAFailureAloneDoesNot(t *testing.T) {
	failing := func(context.Context, *peer.Event) (*peer.Message, error) { return nil, errors.New("not me") }
	silent := func(context.Context, *peer.Event) (*peer.Message, error) { return nil, peer.ErrNoAnswer }
	c := star(t, failing, silent, twice)
	response, err := c.Request(within(t), ask(t, 4, events.Mode_answer), Answer)
	ok(t, err)
	if response.From != "serverc" {
		t.Errorf("answered by %s", response.From)
	}
	if _, err := c.RequestTo(within(t), "servera", ask(t, 4, events.Mode_answer), Answer); err == nil || err.Error() !=
		`request failed at "servera": handlerRaised: *errors.errorString: not me` {
		t.Errorf("got %v", err)
	}
	other := func(context.Context, *peer.Event) (*peer.Message, error) { return countOf(t, 1), nil }
	slow := func(ctx context.Context, request *peer.Event) (*peer.Message, error) {
		time.Sleep(20 * time.Millisecond) // the answer of no use comes first
		return twice(ctx, request)
	}
	c = star(t, other, slow)
	response, err = c.Request(within(t), ask(t, 4, events.Mode_answer), Answer)
	ok(t, err)
	if response.From != "serverb" {
		t.Errorf("answered by %s", response.From)
	}
	c = star(t, failing, failing)
	_, err = c.Request(within(t), ask(t, 4, events.Mode_answer), Answer)
	joined, isJoined := err.(interface{ Unwrap() []error })
	if !isJoined || len(joined.Unwrap()) != 2 {
		t.Errorf("got %v, wanted both failures", err)
	}
}

func TestATypeHasOneHandlerAndCanLoseIt(t *testing.T) {
	s, c := serving(t, twice, nil)
	if err := s.Handle(Ask, twice); err == nil {
		t.Error("two handlers")
	}
	s.Unhandle(Ask)
	ok(t, s.Acknowledged(within(t)))
	if _, err := c.Request(within(t), ask(t, 1, events.Mode_answer), Answer); !errors.Is(err, peer.ErrNobody) {
		t.Errorf("got %v", err)
	}
	ok(t, s.Handle(Ask, twice))
	ok(t, s.Acknowledged(within(t)))
	_, err := c.Request(within(t), ask(t, 1, events.Mode_answer), Answer)
	ok(t, err)
}
