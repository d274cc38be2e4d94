package peer

import (
	"fmt"
	"math"
	"time"

	"lahja-capn.example/peer/internal/session"
	"lahja-capn.example/peer/internal/wire"
)

// Unlimited, as EventCredit or RequestCredit, is a window that never runs out: nothing then slows a fast peer down.
const Unlimited = session.Unlimited

// Never, as Keepalive, sends no pings.
const Never time.Duration = -1

// None, as EventCredit or RequestCredit, is a window of 0: peers may send nothing of the kind.
const None = math.MaxUint64 - 1

// Config of an endpoint. What is left 0 has the default that stands behind it; sizes are bytes on the wire.
type Config struct {
	// Name of the endpoint: [A-Za-z0-9][A-Za-z0-9._-]{0,99}. Peers know it by this.
	Name string
	// Types are declared in every hello. Others are declared when they are first used.
	Types []AnyType

	FrameLimit    int           // 64 MiB: the largest frame that peers may send
	EventCredit   uint64        // 16 MiB: events that a peer may have sent and no consumer has taken
	RequestCredit uint64        // 4 MiB: requests that a peer may have sent and no handler has started on
	QueueBytes    int           // 16 MiB: events that wait for one peer; then Broadcast waits
	OpenRequests  int           // 16384 of one peer; more are answered overloaded
	Handlers      int           // 100 requests are handled at a time
	Keepalive     time.Duration // 60 s without a byte received, then a ping; Never
	Misses        int           // 3 such intervals, then the peer is dead

	HandshakeTimeout time.Duration // 10 s
	AckTimeout       time.Duration // 30 s for a peer to acknowledge subscriptions
	CloseTimeout     time.Duration // 2 s from goodbye to closing
	TooSlow          time.Duration // 5 s: a peer that takes nothing of a full queue is disconnected
	ProbeTimeout     time.Duration // 1 s to answer when another endpoint claims a peer's name

	// Implementation and Version are told to peers, for people.
	Implementation string // "lahja-capn go"
	Version        string

	// Notify is told about peers, one notice at a time, in order. It may take its time, and call the endpoint.
	Notify func(Notice)
}

func orDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

func (c *Config) complete() error {
	orDefault(&c.FrameLimit, 64<<20)
	orDefault(&c.EventCredit, 16<<20)
	orDefault(&c.RequestCredit, 4<<20)
	orDefault(&c.QueueBytes, 16<<20)
	orDefault(&c.OpenRequests, 16384)
	orDefault(&c.Handlers, 100)
	orDefault(&c.Keepalive, 60*time.Second)
	orDefault(&c.Misses, 3)
	orDefault(&c.HandshakeTimeout, 10*time.Second)
	orDefault(&c.AckTimeout, 30*time.Second)
	orDefault(&c.CloseTimeout, 2*time.Second)
	orDefault(&c.TooSlow, 5*time.Second)
	orDefault(&c.ProbeTimeout, time.Second)
	orDefault(&c.Implementation, "lahja-capn go")
	if !session.IsName(c.Name) {
		return fmt.Errorf("an endpoint cannot be called %.100q: wanted [A-Za-z0-9][A-Za-z0-9._-]{0,99}", c.Name)
	}
	if c.FrameLimit < wire.MinFrameLimit || c.FrameLimit > wire.MaxFrame {
		return fmt.Errorf("Config.FrameLimit is %d bytes: wanted %d to %d", c.FrameLimit, wire.MinFrameLimit, wire.MaxFrame)
	}
	for _, credit := range []*uint64{&c.EventCredit, &c.RequestCredit} {
		switch {
		case *credit == None:
			*credit = 0
		case *credit > math.MaxInt64 && *credit != Unlimited:
			return fmt.Errorf("Config: a credit window of %d bytes: wanted at most 2^63 - 1, Unlimited or None", *credit)
		}
	}
	if c.Keepalive == Never {
		c.Keepalive = 0
	} else if c.Keepalive < time.Millisecond || c.Keepalive > math.MaxUint32*time.Millisecond {
		return fmt.Errorf("Config.Keepalive is %v: wanted 1 ms to 49 days, or Never", c.Keepalive)
	}
	if c.Misses < 2 {
		return fmt.Errorf("Config.Misses is %d: fewer than 2 would end a peer that was never asked", c.Misses)
	}
	for name, value := range map[string]int64{
		"QueueBytes": int64(c.QueueBytes), "OpenRequests": int64(c.OpenRequests), "Handlers": int64(c.Handlers),
		"HandshakeTimeout": int64(c.HandshakeTimeout), "AckTimeout": int64(c.AckTimeout),
		"CloseTimeout": int64(c.CloseTimeout),
		"TooSlow":      int64(c.TooSlow), "ProbeTimeout": int64(c.ProbeTimeout),
	} {
		if value < 0 {
			return fmt.Errorf("Config.%s is %d: wanted more than 0", name, value)
		}
	}
	return nil
}

// Notice is something that happened to a peer.
type Notice struct {
	Kind NoticeKind
	// Peer is its name; "" if it had not introduced itself.
	Peer string
	// Type is set for subscriptions of types that are known here, and for TypeDisabled; TypeID always for both.
	Type   *EventType
	TypeID uint64
	// Code of the goodbye, for PeerDown and Refused: as in wire.capnp, "" if the stream ended without one.
	Code   string
	ByPeer bool
	Text   string
}

// NoticeKind says what happened.
type NoticeKind int

const (
	// PeerUp: events and requests may pass. PeerSubscribed follows for each type that the peer wants.
	PeerUp NoticeKind = iota
	// PeerDown: the connection is over.
	PeerDown
	// Refused: a connection ended before it came up.
	Refused
	PeerSubscribed
	PeerUnsubscribed
	// TypeDisabled: the peer holds another layout of the type, so none passes between the two. Text says what differs.
	TypeDisabled
)
