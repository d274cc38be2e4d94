package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"lahja-capn.example/peer/internal/session"
	"lahja-capn.example/peer/internal/wirecapnp"
)

// request is one that waits for its answer, at one or more peers. Guarded by the endpoint's mu.
type request struct {
	numbers  map[*conn]uint64
	wanted   []AnyType
	ready    chan struct{} // closed when done
	done     bool
	answer   *Event
	err      error
	failures []error
}

// Request sends a request to every connected peer that subscribes to its type, and returns the first response. ctx
// bounds the time: without a deadline, a peer that never answers is waited for as long as it is connected. wanted are
// the types that the response may be of; none: any type that is known here.
//
// It fails with ErrNobody; when all peers have failed or gone, with their RequestFailed and ErrWrongAnswer joined, or
// ErrDisconnected; or with the error of ctx.
func (e *Endpoint) Request(ctx context.Context, message *Message, wanted ...AnyType) (*Event, error) {
	return e.request(ctx, "", message, wanted)
}

// RequestTo is Request to one peer alone.
func (e *Endpoint) RequestTo(ctx context.Context, peer string, message *Message, wanted ...AnyType) (*Event, error) {
	return e.request(ctx, peer, message, wanted)
}

func (e *Endpoint) request(ctx context.Context, peer string, message *Message, wanted []AnyType) (*Event, error) {
	known := message.eventType
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	// Peers judge from our rows whether they may answer with these types.
	for _, t := range wanted {
		if _, err := e.learn(t.eventType()); err != nil {
			return nil, err
		}
	}
	wireID, err := e.learn(known)
	if err != nil {
		return nil, err
	}
	r := &request{numbers: map[*conn]uint64{}, wanted: wanted, ready: make(chan struct{})}
	defer r.forget()
	var tooLarge error
	for _, c := range e.wanting(known, peer) {
		if err := e.room(ctx, c, c.session.RequestBytes, &c.requestsTaken); err != nil {
			return nil, err
		}
		if !c.isUp || !c.session.Wants(&known.core) {
			continue
		}
		number, err := c.session.QueueRequest(&known.core, wireID, message.ownFrame())
		if err != nil {
			tooLarge = err
			continue
		}
		r.numbers[c] = number
		c.pending[number] = r
		c.after()
	}
	if len(r.numbers) == 0 && !r.done && len(r.failures) == 0 {
		if tooLarge != nil {
			return nil, tooLarge
		}
		return nil, fmt.Errorf("%v: %w", known, ErrNobody)
	}
	e.mu.Unlock()
	select {
	case <-r.ready:
	case <-ctx.Done():
	}
	e.mu.Lock()
	if r.done {
		return r.answer, r.err
	}
	return nil, ctx.Err()
}

// finish is called when the answer, or the error, is set.
func (r *request) finish() {
	r.done = true
	close(r.ready)
}

// forget gives up what is still open.
func (r *request) forget() {
	for c, number := range r.numbers {
		delete(c.pending, number)
		c.session.Forget(number)
	}
	r.numbers = nil
}

// settled: a peer answered, or is gone, and if it was the last one the request has failed.
func (r *request) settled(c *conn, failure error) {
	delete(r.numbers, c)
	if r.done {
		return
	}
	if failure != nil {
		r.failures = append(r.failures, failure)
	}
	if len(r.numbers) == 0 {
		r.err = errors.Join(r.failures...)
		if r.err == nil {
			r.err = ErrDisconnected
		}
		r.finish()
	}
}

func (r *request) gone(c *conn) { r.settled(c, nil) }

// answered: a response has come. One of no use is a failure of its responder alone. Called with mu held.
func (e *Endpoint) answered(c *conn, answered session.Answered) {
	r := c.pending[answered.Number]
	if r == nil {
		return
	}
	delete(c.pending, answered.Number)
	var t *EventType
	if answered.Type != nil {
		t = e.known[answered.Type.Row.TypeID]
	}
	isWanted := func(wanted AnyType) bool { return wanted.eventType() == t }
	if t == nil || len(r.wanted) > 0 && !slices.ContainsFunc(r.wanted, isWanted) {
		r.settled(c, fmt.Errorf("%w: %q answered with %s (%#x)", ErrWrongAnswer, c.name(), answered.Row.Name, answered.Row.TypeID))
		return
	}
	delete(r.numbers, c)
	if !r.done {
		r.answer = &Event{Type: t, From: c.name(), frame: answered.Frame}
		r.finish()
	}
}

// failed: a peer says that there is no response.
func (e *Endpoint) failed(c *conn, failed session.AnsweredFailed) {
	r := c.pending[failed.Correlation]
	if r == nil {
		return
	}
	delete(c.pending, failed.Correlation)
	r.settled(c, &RequestFailed{Peer: c.name(), Code: session.FailedName(failed.Code), TypeName: failed.TypeName, Text: failed.Text})
}

// --- the other side ---

// Handler answers requests of a type. Several run at a time. The event is the request; ctx ends with its connection.
// The requester is told of an error (see Failure); after ErrNoAnswer it is told nothing. A panic is an error.
type Handler func(ctx context.Context, request *Event) (*Message, error)

// call is a request for which a handler is to run.
type call struct {
	conn    *conn
	number  uint64
	event   *Event
	handler Handler
}

// Handle answers requests of type t, from every peer. A type has one handler at most.
func (e *Endpoint) Handle(t AnyType, handler Handler) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	known := t.eventType()
	if _, err := e.learn(known); err != nil {
		return err
	}
	if e.handlers[known.TypeID()] != nil {
		return fmt.Errorf("endpoint %q has a handler for %v already", e.config.Name, known)
	}
	e.handlers[known.TypeID()] = handler
	e.changeInterest([]uint64{known.TypeID()}, nil)
	return nil
}

// Unhandle takes the handler of a type away.
func (e *Endpoint) Unhandle(t AnyType) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := t.eventType().TypeID()
	if e.handlers[id] != nil {
		delete(e.handlers, id)
		e.changeInterest(nil, []uint64{id})
	}
}

// handle starts a request's handler, or lets it wait for one of those that run. Called with mu held.
func (e *Endpoint) handle(c *conn, arrived session.Arrived) {
	id := arrived.Type.Row.TypeID
	handler := e.handlers[id]
	if handler == nil {
		c.session.ReturnRequestCredit(len(arrived.Frame))
		c.session.Fail(arrived.Number, wirecapnp.FailedCode_noHandler, "", "nobody answers "+arrived.Type.Row.Name+" here")
		return
	}
	e.waiting = append(e.waiting, &call{
		conn:    c,
		number:  arrived.Number,
		event:   &Event{Type: e.known[id], From: c.name(), frame: arrived.Frame},
		handler: handler,
	})
	if e.running < e.config.Handlers {
		e.running++
		go e.work()
	}
}

// work runs handlers while requests wait.
func (e *Endpoint) work() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.waiting) > 0 {
		next := e.waiting[0]
		e.waiting[0] = nil
		e.waiting = e.waiting[1:]
		c := next.conn
		if c.ending != nil {
			continue
		}
		c.session.ReturnRequestCredit(next.event.Size())
		c.after()
		e.mu.Unlock()
		answer, err := next.run()
		e.mu.Lock()
		if c.ending == nil {
			e.answer(next, answer, err)
			c.after()
		}
	}
	e.running--
}

func (call *call) run() (answer *Message, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &Failure{TypeName: "panic", Text: fmt.Sprint(r)}
		}
	}()
	return call.handler(call.conn.ctx, call.event)
}

func (e *Endpoint) answer(call *call, answer *Message, err error) {
	if errors.Is(err, ErrNoAnswer) {
		return
	}
	var wireID uint16
	if err == nil && answer == nil {
		err = &Failure{TypeName: "NoResponse", Text: "the handler returned neither a response nor an error"}
	}
	if err == nil {
		wireID, err = e.learn(answer.eventType)
	}
	if err == nil {
		// A peer that asks and does not take the answers keeps its handlers, not our memory.
		c := call.conn
		_ = e.room(c.ctx, c, c.session.AnswerBytes, &c.answersTaken)
		c.session.Respond(call.number, &answer.eventType.core, wireID, answer.ownFrame())
		return
	}
	code := wirecapnp.FailedCode_handlerRaised
	if errors.Is(err, ErrUnreadable) {
		code = wirecapnp.FailedCode_unreadable
	}
	typeName, text := fmt.Sprintf("%T", err), err.Error()
	var failure *Failure
	if errors.As(err, &failure) {
		typeName, text = failure.TypeName, failure.Text
	}
	call.conn.session.Fail(call.number, code, typeName, text)
}
