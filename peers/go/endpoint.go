// Package peer joins a lahja_capn event bus: processes that send each other events, requests and responses, all of them
// Cap'n Proto structs, over Unix sockets. README.md shows how; docs/wire.md is the protocol.
package peer

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"lahja-capn.example/peer/internal/session"
	"lahja-capn.example/peer/internal/wirecapnp"
)

// Endpoint is one participant of the bus. Its methods may be called from any goroutine.
type Endpoint struct {
	config Config
	local  session.Local
	start  time.Time

	// mu guards everything below, and all sessions: what concerns several connections (names, requests, an event's
	// credit) is then one step. Nothing waits while it is held.
	mu sync.Mutex
	// changed is closed, and forgotten, when anything changes that somebody waits for; nil if nobody waits.
	changed chan struct{}
	closed  bool
	table   *session.Table
	known   map[uint64]*EventType

	listeners []*listener
	conns     map[*conn]bool
	dialing   map[string]*conn
	holders   map[string]*conn
	up        map[string]*conn

	// interest counts who here wants a type: subscriptions and handlers. Peers are told of types above 0.
	interest      map[uint64]int
	subscriptions map[uint64][]*Subscription
	// everything has the subscriptions to all types.
	everything []*Subscription
	handlers   map[uint64]Handler
	waiting    []*call
	running    int

	notices notices
}

// New returns an endpoint that is connected to nothing.
func New(config Config) (*Endpoint, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	e := &Endpoint{
		config:        config,
		start:         time.Now(),
		table:         session.NewTable(),
		known:         map[uint64]*EventType{},
		conns:         map[*conn]bool{},
		dialing:       map[string]*conn{},
		holders:       map[string]*conn{},
		up:            map[string]*conn{},
		interest:      map[uint64]int{},
		subscriptions: map[uint64][]*Subscription{},
		handlers:      map[uint64]Handler{},
	}
	e.local = session.Local{
		Name:             config.Name,
		Implementation:   config.Implementation,
		Version:          config.Version,
		FrameLimit:       config.FrameLimit,
		EventCredit:      config.EventCredit,
		RequestCredit:    config.RequestCredit,
		OpenRequests:     config.OpenRequests,
		AnswerBytes:      config.QueueBytes,
		HandshakeTimeout: config.HandshakeTimeout,
		AckTimeout:       config.AckTimeout,
		CloseTimeout:     config.CloseTimeout,
		Keepalive:        config.Keepalive,
		Misses:           config.Misses,
		Find: func(typeID uint64) *session.Type {
			if known := e.known[typeID]; known != nil {
				return &known.core
			}
			return nil
		},
		Serves: func(typeID uint64) bool { return e.handlers[typeID] != nil },
	}
	if _, err := rand.Read(e.local.Instance[:]); err != nil {
		return nil, err
	}
	for _, t := range config.Types {
		if _, err := e.learn(t.eventType()); err != nil {
			return nil, err
		}
	}
	e.notices.start(config.Notify)
	return e, nil
}

// Name of the endpoint.
func (e *Endpoint) Name() string { return e.config.Name }

// learn makes a type known here and gives it a wire id. Peers are told before it is used.
func (e *Endpoint) learn(t *EventType) (uint16, error) {
	if known := e.known[t.TypeID()]; known != nil && known != t {
		return 0, fmt.Errorf("type %#x is known to endpoint %q as %q, from another Bind: bind a type once, and use that",
			t.TypeID(), e.config.Name, known.Name())
	}
	wireID, err := e.table.WireID(&t.core)
	if err != nil {
		return 0, err
	}
	if e.known[t.TypeID()] == nil {
		e.known[t.TypeID()] = t
		for c := range e.conns {
			c.session.Recheck(t.TypeID())
			c.after()
		}
	}
	return wireID, nil
}

// --- waiting ---

// wake tells everybody who waits to look again.
func (e *Endpoint) wake() {
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}

// wait returns when done is true, or with an error when ctx ends. It is called with mu held, gives it up while it waits,
// and holds it when it returns; done is called with it held. A limit that is not zero is when done wants to be asked
// again, whatever happened.
func (e *Endpoint) wait(ctx context.Context, done func() (ready bool, again time.Time)) error {
	for {
		ready, again := done()
		if ready {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.changed == nil {
			e.changed = make(chan struct{})
		}
		changed := e.changed
		var alarm <-chan time.Time
		var timer *time.Timer
		if !again.IsZero() {
			timer = time.NewTimer(time.Until(again))
			alarm = timer.C
		}
		e.mu.Unlock()
		select {
		case <-changed:
		case <-alarm:
		case <-ctx.Done():
		}
		if timer != nil {
			timer.Stop()
		}
		e.mu.Lock()
	}
}

// --- who is there ---

// Peer is a connected endpoint.
type Peer struct {
	Name           string
	Implementation string
	Version        string
	// Subscriptions has the type ids that it wants; All: it wants every type.
	Subscriptions []uint64
	All           bool
}

// Peers returns the connected endpoints, in no order.
func (e *Endpoint) Peers() []Peer {
	e.mu.Lock()
	defer e.mu.Unlock()
	peers := make([]Peer, 0, len(e.up))
	for name, c := range e.up {
		info := c.session.Peer
		remote, all := c.session.Remote()
		peer := Peer{Name: name, Implementation: info.Implementation, Version: info.Version, All: all}
		for typeID := range remote {
			peer.Subscriptions = append(peer.Subscriptions, typeID)
		}
		peers = append(peers, peer)
	}
	return peers
}

// WaitForSubscriber returns when a connected peer wants events of type t.
func (e *Endpoint) WaitForSubscriber(ctx context.Context, t AnyType) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.waitOpen(ctx, func() bool {
		for _, c := range e.up {
			if c.session.Wants(&t.eventType().core) {
				return true
			}
		}
		return false
	})
}

// waitOpen waits for done as wait does, or for the endpoint's end, which is ErrClosed.
func (e *Endpoint) waitOpen(ctx context.Context, done func() bool) error {
	err := e.wait(ctx, func() (bool, time.Time) { return e.closed || done(), time.Time{} })
	if err == nil && e.closed {
		return ErrClosed
	}
	return err
}

// Stats sums over the connections to a peer that are up now.
type Stats struct {
	SentEvents, ReceivedEvents, Skipped, LateAnswers uint64
	// QueuedBytes wait to be sent; WaitingForCredit: some of that waits for a peer's credit.
	QueuedBytes      int
	WaitingForCredit bool
}

// Stats of the connection to a peer. The zero Stats if there is none.
func (e *Endpoint) Stats(peer string) Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.up[peer]
	if c == nil {
		return Stats{}
	}
	counters := &c.session.Counters
	return Stats{
		SentEvents:       counters.SentEvents,
		ReceivedEvents:   counters.ReceivedEvents,
		Skipped:          counters.Skipped,
		LateAnswers:      counters.Late,
		QueuedBytes:      c.session.QueuedBytes(),
		WaitingForCredit: c.session.WaitingForCredit(),
	}
}

// Disconnect ends the connection to a peer with the goodbye shutdown. It does not wait.
func (e *Endpoint) Disconnect(peer string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.up[peer]; c != nil {
		c.close(wirecapnp.GoodbyeCode_shutdown, "disconnected")
	}
}

// Close says goodbye to every peer and returns when all connections are closed. What is queued is sent before, for at
// most CloseTimeout or until ctx ends.
func (e *Endpoint) Close(ctx context.Context) error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	for _, l := range e.listeners {
		l.close()
	}
	e.listeners = nil
	e.wake()

	drain, cancel := context.WithTimeout(ctx, e.config.CloseTimeout)
	_ = e.wait(drain, func() (bool, time.Time) {
		for c := range e.conns {
			if c.session.State() == session.Up && c.session.QueuedBytes() > 0 {
				return false, time.Time{}
			}
		}
		return true, time.Time{}
	})
	cancel()
	for c := range e.conns {
		c.close(wirecapnp.GoodbyeCode_shutdown, fmt.Sprintf("endpoint %q stops", e.config.Name))
	}
	// Every connection has a deadline of its own now.
	_ = e.wait(context.Background(), func() (bool, time.Time) { return len(e.conns) == 0, time.Time{} })
	e.closeSubscriptions()
	e.mu.Unlock()
	e.notices.stop()
	return nil
}
