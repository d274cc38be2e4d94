// Package session is one connection as a value: frames in, events out, bytes to send, and the next deadline. It knows
// no socket, no clock and no lock; its owner calls one method at a time. docs/wire.md sections 3 to 10 are its rules.
package session

import (
	"fmt"
	"strconv"
	"time"

	"lahja-capn.example/peer/internal/wire"
	"lahja-capn.example/peer/internal/wirecapnp"
)

// ProtocolVersion of docs/wire.md.
const ProtocolVersion = wirecapnp.ProtocolVersion

// Local is who we are, and our limits. Sessions of one endpoint share it.
type Local struct {
	Name           string
	Instance       [16]byte
	Implementation string
	Version        string
	Features       []string

	FrameLimit    int
	EventCredit   uint64
	RequestCredit uint64
	// OpenRequests of one peer; more are answered `overloaded`.
	OpenRequests int
	// AnswerBytes bounds refusals of requests that a peer does not take from us.
	AnswerBytes int

	HandshakeTimeout time.Duration
	// AckTimeout: so long a peer may take to acknowledge our subscriptions.
	AckTimeout   time.Duration
	CloseTimeout time.Duration
	Keepalive    time.Duration
	Misses       int

	// Find returns what is known here under a type id, or nil.
	Find func(typeID uint64) *Type
	// Serves is true if requests of this type have a handler here.
	Serves func(typeID uint64) bool
}

// Counters of one connection, in frames.
type Counters struct {
	SentEvents, ReceivedEvents, Skipped, Late, Refused, DroppedByPeer uint64
}

// Session is the state of one connection.
type Session struct {
	Peer     *PeerInfo
	Counters Counters

	local     *Local
	table     *Table
	expected  string
	connector bool

	state  State
	ours   half
	theirs half
	events []Event
	outbox outbox

	peerTable     peerTable
	eventWindow   receiveWindow
	requestWindow receiveWindow

	// subscribed is what we told the peer that we want; remote is what it told us.
	subscribed    map[uint64]bool
	subscribedAll bool
	remote        map[uint64]bool
	remoteAll     bool

	// Requests of ours that wait for an answer, the last number that was given and the last that was sent.
	outgoing   map[uint64]bool
	lastNumber uint64
	sentNumber uint64
	// sentAnswers counts responses and `failed`s.
	sentAnswers uint64
	// Requests of the peer that wait for ours, and its last number.
	incoming     map[uint64]bool
	remoteNumber uint64

	// declared counts the rows of our table that the peer was told.
	declared       int
	sequence       uint64
	acked          uint64
	remoteSequence uint64

	// Messages that are due. One stands for many: they are made when they are sent, so that no peer can make them
	// pile up.
	ackDue    uint64
	creditDue bool
	pingDue   bool
	pongDue   bool
	// creditLook is when to look whether a peer that may send nothing is owed credit; the zero time if it may send.
	creditLook time.Time
	ack        ackWatch

	goodbye           []byte
	sendFinished      bool
	keepalive         keepalive
	handshakeDeadline time.Time
	closeDeadline     time.Time
}

// New returns the session of a connection that was made at now. A connector names the endpoint that it wants to reach
// and says hello; an acceptor waits for the peer's.
func New(local *Local, table *Table, connector bool, expected string, now time.Time) *Session {
	s := &Session{
		local:             local,
		table:             table,
		expected:          expected,
		connector:         connector,
		peerTable:         newPeerTable(),
		eventWindow:       receiveWindow{window: local.EventCredit},
		requestWindow:     receiveWindow{window: local.RequestCredit},
		subscribed:        map[uint64]bool{},
		remote:            map[uint64]bool{},
		outgoing:          map[uint64]bool{},
		incoming:          map[uint64]bool{},
		keepalive:         keepalive{interval: local.Keepalive, misses: local.Misses, last: now},
		handshakeDeadline: now.Add(local.HandshakeTimeout),
	}
	if connector {
		s.sayHello()
	}
	return s
}

// State of the connection as a whole.
func (s *Session) State() State { return s.state }

// Connector is true if this side opened the connection.
func (s *Session) Connector() bool { return s.connector }

// TakeEvents returns what happened since the last call, in order.
func (s *Session) TakeEvents() []Event {
	events := s.events
	s.events = nil
	return events
}

func (s *Session) emit(event Event) { s.events = append(s.events, event) }

// --- handshake ---

func (s *Session) send(message Control) {
	after, err := s.ours.advance(message)
	if err != nil {
		panic(err) // a fault of this package: its callers cannot choose what is sent
	}
	s.ours = after
	s.outbox.control.push(item{frame: EncodeControl(message)})
}

func (s *Session) sayHello() {
	rows := takeRows(s.table.rows)
	s.declared = len(rows)
	s.send(&Hello{
		ProtocolVersion: ProtocolVersion,
		Name:            s.local.Name,
		Instance:        s.local.Instance[:],
		Implementation:  s.local.Implementation,
		Version:         s.local.Version,
		FrameLimit:      uint32(s.local.FrameLimit),
		KeepaliveMs:     uint32(s.local.Keepalive / time.Millisecond),
		EventCredit:     s.local.EventCredit,
		RequestCredit:   s.local.RequestCredit,
		Features:        s.local.Features,
		Types:           rows,
	})
	s.eventWindow.start()
	s.requestWindow.start()
}

// Accept is the owner's answer to PeerHello: nothing speaks against the peer. add are the type ids that we want; with
// all we want every type.
func (s *Session) Accept(add []uint64, all bool, now time.Time) {
	if s.state != Handshake || s.theirs == opening || s.ours == active {
		return
	}
	if s.ours == opening {
		s.sayHello()
	}
	s.declareRest()
	s.subscribe(add, nil, all)
	s.checkUp(now)
}

// declareRest tells the peer the rows of our table that it does not know.
func (s *Session) declareRest() {
	for s.declared < len(s.table.rows) {
		rows := takeRows(s.table.rows[s.declared:])
		s.declared += len(rows)
		s.send(&Declare{Types: rows})
	}
}

func (s *Session) checkUp(now time.Time) {
	if s.state != Handshake || s.ours != active || s.theirs != active {
		return
	}
	s.state = Up
	s.awaitAck(now)
	s.emit(PeerUp{})
	for typeID := range s.peerTable.wireIDs {
		s.lookAt(typeID)
	}
}

// lookAt finds now, and loudly, whether a type of the peer's table can pass.
func (s *Session) lookAt(typeID uint64) {
	if known := s.local.Find(typeID); known != nil {
		s.incompatibility(known)
	}
}

// Recheck looks again at a type that has become known here.
func (s *Session) Recheck(typeID uint64) {
	if _, declared := s.peerTable.wireIDs[typeID]; declared && s.state == Up {
		s.lookAt(typeID)
	}
}

// incompatibility returns why a type cannot pass between the two sides, or nil. A new finding is also an event.
func (s *Session) incompatibility(known *Type) *Incompatibility {
	found, fresh := s.peerTable.verdict(known)
	if fresh {
		s.outbox.events.keep(func(i *item) bool { return i.typeID != known.Row.TypeID })
		s.emit(TypeDisabled{found})
	}
	return found
}

// --- subscriptions ---

func (s *Session) subscribe(add, remove []uint64, all bool) {
	for _, id := range remove {
		delete(s.subscribed, id)
	}
	for _, id := range add {
		s.subscribed[id] = true
	}
	s.subscribedAll = all
	s.sequence++
	s.send(&Subscriptions{Sequence: s.sequence, Add: add, Remove: remove, All: all, AckWanted: true})
}

// Subscribe changes what we want from the peer. It returns the sequence that SubscriptionsApplied will reach. Before
// Accept it does nothing: that takes them all.
func (s *Session) Subscribe(add, remove []uint64, all bool, now time.Time) uint64 {
	if s.ours == active && (len(add)+len(remove) > 0 || all != s.subscribedAll) {
		s.declareRest()
		s.subscribe(add, remove, all)
		s.awaitAck(now)
	}
	return s.sequence
}

// Acked is the last sequence of our subscriptions that the peer has applied; Sequence the last that was sent.
func (s *Session) Acked() uint64    { return s.acked }
func (s *Session) Sequence() uint64 { return s.sequence }

// Remote returns the type ids that the peer subscribes to, and whether it wants all types.
func (s *Session) Remote() (map[uint64]bool, bool) { return s.remote, s.remoteAll }

// Wants is true if events of the type should be sent to the peer.
func (s *Session) Wants(known *Type) bool {
	return s.state == Up && (s.remoteAll || s.remote[known.Row.TypeID]) && s.incompatibility(known) == nil
}

// Incompatible returns why a type does not pass, or nil.
func (s *Session) Incompatible(known *Type) *Incompatibility {
	if s.state != Up {
		return nil
	}
	return s.incompatibility(known)
}

// --- content to send ---

// TooLarge: a frame exceeds the peer's frameLimit. Nothing was queued.
type TooLarge struct {
	Type        string
	Peer        string
	Size, Limit int
}

func (e *TooLarge) Error() string {
	return fmt.Sprintf("%s encodes to %d bytes but peer %q accepts %d per frame (its frameLimit, from the handshake). "+
		"Send less, or raise the limit there", e.Type, e.Size, e.Peer, e.Limit)
}

func (s *Session) checkSize(known *Type, frame []byte) error {
	if len(frame) > s.Peer.FrameLimit {
		return &TooLarge{Type: known.Row.Name, Peer: s.Peer.Name, Size: len(frame), Limit: s.Peer.FrameLimit}
	}
	return nil
}

// QueueEvent queues the frame of an event that the peer wants. The frame is shared and not changed.
func (s *Session) QueueEvent(known *Type, frame []byte) error {
	if err := s.checkSize(known, frame); err != nil {
		return err
	}
	s.declareRest()
	s.outbox.events.push(item{frame: frame, typeID: known.Row.TypeID})
	return nil
}

// QueueRequest queues a request under a new number, which it returns. The frame is the session's from now on.
func (s *Session) QueueRequest(known *Type, wireID uint16, frame []byte) (uint64, error) {
	if err := s.checkSize(known, frame); err != nil {
		return 0, err
	}
	s.declareRest()
	s.lastNumber++
	wire.PutHeader(frame, wire.Request, wireID, s.lastNumber)
	s.outgoing[s.lastNumber] = true
	s.outbox.requests.push(item{frame: frame, typeID: known.Row.TypeID, number: s.lastNumber})
	return s.lastNumber, nil
}

// Forget gives a request up. What is still queued of it is not sent; an answer that comes is late.
func (s *Session) Forget(number uint64) {
	delete(s.outgoing, number)
	if number > s.sentNumber {
		s.outbox.requests.keep(func(i *item) bool { return i.number != number })
	}
}

// Respond answers a request of the peer with an event whose frame is the session's from now on. What cannot pass is
// answered `failed` instead.
func (s *Session) Respond(number uint64, known *Type, wireID uint16, frame []byte) {
	if !s.incoming[number] || s.state != Up {
		return
	}
	if found := s.incompatibility(known); found != nil {
		s.Fail(number, wirecapnp.FailedCode_incompatibleType, "", found.String())
		return
	}
	if err := s.checkSize(known, frame); err != nil {
		s.Fail(number, wirecapnp.FailedCode_handlerRaised, "FrameTooLarge", err.Error())
		return
	}
	delete(s.incoming, number)
	s.declareRest()
	wire.PutHeader(frame, wire.Response, wireID, number)
	s.outbox.answers.push(item{frame: frame, typeID: known.Row.TypeID})
}

// Fail answers a request of the peer with `failed`.
func (s *Session) Fail(number uint64, code wirecapnp.FailedCode, typeName, text string) {
	if s.incoming[number] && s.state == Up {
		delete(s.incoming, number)
		s.queueFailed(number, code, typeName, text, 0)
	}
}

func (s *Session) queueFailed(number uint64, code wirecapnp.FailedCode, typeName, text string, credit int) {
	frame := EncodeControl(&Failed{Correlation: number, Code: code, TypeName: typeName, Text: text})
	s.outbox.answers.push(item{frame: frame, credit: credit})
}

// ReturnEventCredit says that an event of size bytes was taken, or dropped, here.
func (s *Session) ReturnEventCredit(size int) {
	if s.eventWindow.giveBack(size) {
		s.creditDue = true
	}
}

// ReturnRequestCredit says that the handler of a request of size bytes has started.
func (s *Session) ReturnRequestCredit(size int) {
	if s.requestWindow.giveBack(size) {
		s.creditDue = true
	}
}

// Ping asks the peer for a sign of life.
func (s *Session) Ping() { s.pingDue = true }

// QueuedBytes wait to be sent; EventRoom and RequestRoom tell what is queued of each.
func (s *Session) QueuedBytes() int  { return s.outbox.bytes() }
func (s *Session) EventBytes() int   { return s.outbox.events.bytes }
func (s *Session) RequestBytes() int { return s.outbox.requests.bytes }
func (s *Session) AnswerBytes() int  { return s.outbox.answers.bytes }

// WaitingForCredit is true if events are queued that the peer has no credit for.
func (s *Session) WaitingForCredit() bool {
	return s.outbox.events.len() > 0 && !s.outbox.eventWindow.open()
}

// Sent counts frames that were pulled.
type Sent struct{ Events, Requests, Answers uint64 }

func (s *Session) Sent() Sent {
	return Sent{Events: s.Counters.SentEvents, Requests: s.sentNumber, Answers: s.sentAnswers}
}

// CodeName is a goodbye code as wire.capnp spells it, or the number of an unknown one.
func CodeName(code wirecapnp.GoodbyeCode) string {
	if name := code.String(); name != "" {
		return name
	}
	return strconv.Itoa(int(code))
}

// FailedName is a FailedCode as wire.capnp spells it, or the number of an unknown one.
func FailedName(code wirecapnp.FailedCode) string {
	if name := code.String(); name != "" {
		return name
	}
	return strconv.Itoa(int(code))
}
