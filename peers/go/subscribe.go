package peer

import (
	"context"
	"slices"
	"time"

	"lahja-capn.example/peer/internal/session"
)

// Subscription receives events, in the order in which each peer sent them. Events wait in it until they are taken;
// until then their senders do not get the credit for them back, which is what slows a fast sender down.
type Subscription struct {
	endpoint *Endpoint
	// ready wakes one goroutine that waits in Next; done is closed at the end.
	ready chan struct{}
	done  chan struct{}

	// Below: guarded by the endpoint's mu.
	types  map[uint64]bool
	all    bool
	queue  []*delivery
	closed bool
}

// delivery is a received event that subscriptions have not taken yet.
type delivery struct {
	event *Event
	conn  *conn
	left  int
}

func (e *Endpoint) newSubscription() *Subscription {
	return &Subscription{endpoint: e, ready: make(chan struct{}, 1), done: make(chan struct{}), types: map[uint64]bool{}}
}

// Subscribe receives events of these types from every peer, those that connect later included.
func (e *Endpoint) Subscribe(types ...AnyType) (*Subscription, error) {
	s := e.newSubscription()
	if err := s.Add(types...); err != nil {
		return nil, err
	}
	return s, nil
}

// SubscribeAll receives events of every type that is known here, now or later: those of Config.Types, and those that
// were used in any call of this endpoint. Peers send it all their types; the unknown ones are skipped.
func (e *Endpoint) SubscribeAll() (*Subscription, error) {
	s := e.newSubscription()
	s.all = true
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	e.everything = append(e.everything, s)
	e.tellInterest(nil, nil)
	return s, nil
}

// Add subscribes to more types.
func (s *Subscription) Add(types ...AnyType) error {
	e := s.endpoint
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || s.closed {
		return ErrClosed
	}
	for _, t := range types {
		if _, err := e.learn(t.eventType()); err != nil {
			return err
		}
	}
	var ids []uint64
	for _, t := range types {
		id := t.eventType().TypeID()
		if !s.types[id] {
			s.types[id] = true
			e.subscriptions[id] = append(e.subscriptions[id], s)
			ids = append(ids, id)
		}
	}
	e.changeInterest(ids, nil)
	return nil
}

// Remove unsubscribes from types. Events of them that were not taken yet are dropped.
func (s *Subscription) Remove(types ...AnyType) {
	e := s.endpoint
	e.mu.Lock()
	defer e.mu.Unlock()
	ids := make([]uint64, 0, len(types))
	for _, t := range types {
		ids = append(ids, t.eventType().TypeID())
	}
	s.remove(ids)
}

func (s *Subscription) remove(ids []uint64) {
	e := s.endpoint
	ids = slices.DeleteFunc(ids, func(id uint64) bool { return !s.types[id] })
	for _, id := range ids {
		delete(s.types, id)
		e.subscriptions[id] = slices.DeleteFunc(e.subscriptions[id], func(other *Subscription) bool { return other == s })
	}
	kept := s.queue[:0]
	for _, d := range s.queue {
		if s.all || s.types[d.event.Type.TypeID()] {
			kept = append(kept, d)
		} else {
			d.taken()
		}
	}
	clear(s.queue[len(kept):])
	s.queue = kept
	e.changeInterest(nil, ids)
}

// Close ends the subscription. Next returns ErrClosed.
func (s *Subscription) Close() {
	e := s.endpoint
	e.mu.Lock()
	defer e.mu.Unlock()
	s.close()
}

func (s *Subscription) close() {
	if s.closed {
		return
	}
	s.closed = true
	if s.all {
		s.all = false
		s.endpoint.everything = slices.DeleteFunc(s.endpoint.everything, func(other *Subscription) bool { return other == s })
		s.endpoint.tellInterest(nil, nil)
	}
	ids := make([]uint64, 0, len(s.types))
	for id := range s.types {
		ids = append(ids, id)
	}
	s.remove(ids)
	close(s.done)
}

func (s *Subscription) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Next waits for the next event and takes it. The error is ErrClosed, or that of ctx.
func (s *Subscription) Next(ctx context.Context) (*Event, error) {
	d, err := s.next(ctx)
	if err != nil {
		return nil, err
	}
	d.take()
	return d.event, nil
}

// Events returns a channel of the events, which is closed when ctx or the subscription ends: use it until then, or end
// one of them. An event counts as taken when it was received from the channel.
func (s *Subscription) Events(ctx context.Context) <-chan *Event {
	events := make(chan *Event)
	go func() {
		defer close(events)
		for {
			d, err := s.next(ctx)
			if err != nil {
				return
			}
			select {
			case events <- d.event:
				d.take()
				continue
			case <-ctx.Done():
			case <-s.done:
			}
			d.take()
			return
		}
	}()
	return events
}

// next takes an event off the queue; its credit is still to be returned.
func (s *Subscription) next(ctx context.Context) (*delivery, error) {
	e := s.endpoint
	for {
		e.mu.Lock()
		if len(s.queue) > 0 {
			d := s.queue[0]
			s.queue[0] = nil
			s.queue = s.queue[1:]
			if len(s.queue) > 0 {
				s.wake()
			}
			e.mu.Unlock()
			return d, nil
		}
		e.mu.Unlock()
		select {
		case <-s.ready:
		case <-s.done:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (d *delivery) take() {
	e := d.conn.endpoint
	e.mu.Lock()
	defer e.mu.Unlock()
	d.taken()
}

// taken by one subscription. The last one returns the credit.
func (d *delivery) taken() {
	d.left--
	if d.left == 0 && d.conn.ending == nil {
		d.conn.session.ReturnEventCredit(len(d.event.frame))
		d.conn.flush()
	}
}

// deliver hands a received event to the subscriptions of its type. Called with mu held.
func (e *Endpoint) deliver(c *conn, arrived session.Arrived) {
	typeID := arrived.Type.Row.TypeID
	subscriptions := e.subscriptions[typeID]
	if len(e.everything) > 0 {
		subscriptions = slices.Clone(subscriptions)
		for _, s := range e.everything {
			if !s.types[typeID] {
				subscriptions = append(subscriptions, s)
			}
		}
	}
	if len(subscriptions) == 0 {
		// Only a handler of requests wants the type, or its subscription went this moment.
		c.session.Skip(len(arrived.Frame))
		return
	}
	d := &delivery{
		event: &Event{Type: e.known[typeID], From: c.name(), frame: arrived.Frame},
		conn:  c,
		left:  len(subscriptions),
	}
	for _, s := range subscriptions {
		s.queue = append(s.queue, d)
		s.wake()
	}
}

// changeInterest counts types that are wanted more, or less, and tells the peers about those that begin or end to be
// wanted at all.
func (e *Endpoint) changeInterest(more, less []uint64) {
	var add, remove []uint64
	for _, id := range more {
		e.interest[id]++
		if e.interest[id] == 1 {
			add = append(add, id)
		}
	}
	for _, id := range less {
		e.interest[id]--
		if e.interest[id] == 0 {
			delete(e.interest, id)
			remove = append(remove, id)
		}
	}
	if len(add)+len(remove) > 0 {
		e.tellInterest(add, remove)
	}
}

// tellInterest tells the peers what changed, and whether all types are wanted.
func (e *Endpoint) tellInterest(add, remove []uint64) {
	for c := range e.conns {
		if c.accepted && c.ending == nil {
			c.session.Subscribe(add, remove, len(e.everything) > 0, time.Now())
			c.after()
		}
	}
}

// Acknowledged returns when every peer that is connected now obeys the subscriptions as they are now.
func (e *Endpoint) Acknowledged(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	type target struct {
		c        *conn
		sequence uint64
	}
	var targets []target
	for _, c := range e.up {
		targets = append(targets, target{c, c.session.Sequence()})
	}
	return e.wait(ctx, func() (bool, time.Time) {
		for _, t := range targets {
			if t.c.ending == nil && t.c.session.Acked() < t.sequence {
				return false, time.Time{}
			}
		}
		return true, time.Time{}
	})
}

func (e *Endpoint) closeSubscriptions() {
	seen := map[*Subscription]bool{}
	for _, subscriptions := range e.subscriptions {
		for _, s := range subscriptions {
			seen[s] = true
		}
	}
	for _, s := range e.everything {
		seen[s] = true
	}
	for s := range seen {
		s.close()
	}
}
