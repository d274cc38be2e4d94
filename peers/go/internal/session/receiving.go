package session

import (
	"errors"
	"math"
	"regexp"
	"time"

	"lahja-capn.example/peer/internal/wire"
	"lahja-capn.example/peer/internal/wirecapnp"
)

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// IsName is true for a name that an endpoint may have: docs/wire.md section 13.
func IsName(name string) bool { return nameForm.MatchString(name) }

// CheckHeader judges a header that wire.ParseHeader has read, before memory is taken for its frame.
func (s *Session) CheckHeader(header wire.Header) error {
	if header.Kind != wire.Control && s.state == Handshake {
		return wire.Errorf(wirecapnp.GoodbyeCode_protocolError, "a frame of kind %v before the connection is up", header.Kind)
	}
	return nil
}

// HandleFrame takes a whole frame. After the end of the peer's direction frames are discarded, not judged.
func (s *Session) HandleFrame(header wire.Header, frame []byte, now time.Time) {
	if s.state == Closing || s.state == Closed {
		return
	}
	err := s.CheckHeader(header)
	if err == nil {
		err = wire.CheckTable(frame)
	}
	if err == nil {
		if header.Kind == wire.Control {
			err = s.handleControl(frame, now)
		} else {
			err = s.handleContent(header, frame, now)
		}
	}
	if err != nil {
		s.Refuse(err, now)
	}
}

// Refuse ends the connection because the peer broke a rule: the goodbye says which.
func (s *Session) Refuse(err error, now time.Time) {
	code := wirecapnp.GoodbyeCode_internalError
	var refusal *wire.Error
	if errors.As(err, &refusal) {
		code = refusal.Code
	}
	s.Close(code, err.Error(), now)
}

func refuse(code wirecapnp.GoodbyeCode, format string, args ...any) error {
	return wire.Errorf(code, format, args...)
}

// --- content ---

func (s *Session) handleContent(header wire.Header, frame []byte, now time.Time) error {
	row, declared := s.peerTable.types[header.WireID]
	if !declared {
		return refuse(wirecapnp.GoodbyeCode_unknownId, "a frame with EVENT_ID %d, never declared", header.WireID)
	}
	known := s.local.Find(row.TypeID)
	switch header.Kind {
	case wire.Request:
		return s.handleRequest(header.Correlation, row, known, frame, now)
	case wire.Response:
		return s.handleResponse(header.Correlation, row, known, frame)
	}
	if !s.eventWindow.charge(len(frame)) {
		return refuse(wirecapnp.GoodbyeCode_creditExceeded,
			"an event of %d bytes without credit: the window is %d bytes", len(frame), s.eventWindow.window)
	}
	s.usedUp(&s.eventWindow, now)
	if known == nil || !s.subscribedAll && !s.subscribed[row.TypeID] || s.incompatibility(known) != nil {
		s.Skip(len(frame))
		return nil
	}
	s.Counters.ReceivedEvents++
	s.emit(Arrived{Type: known, Frame: frame})
	return nil
}

// Skip counts an event that nobody here wants, and returns its credit.
func (s *Session) Skip(size int) {
	s.Counters.Skipped++
	s.ReturnEventCredit(size)
}

func (s *Session) handleRequest(number uint64, row *Row, known *Type, frame []byte, now time.Time) error {
	if !s.requestWindow.charge(len(frame)) {
		return refuse(wirecapnp.GoodbyeCode_creditExceeded,
			"a request of %d bytes without credit: the window is %d bytes", len(frame), s.requestWindow.window)
	}
	s.usedUp(&s.requestWindow, now)
	if number <= s.remoteNumber {
		return refuse(wirecapnp.GoodbyeCode_protocolError, "request %d after %d: numbers must increase", number, s.remoteNumber)
	}
	s.remoteNumber = number
	var code wirecapnp.FailedCode
	var text string
	var found *Incompatibility
	if known != nil {
		found = s.incompatibility(known)
	}
	switch {
	case known == nil:
		code, text = wirecapnp.FailedCode_unknownType, row.Name+" is not known here"
	case found != nil:
		code, text = wirecapnp.FailedCode_incompatibleType, found.String()
	case !s.subscribed[row.TypeID] || !s.local.Serves(row.TypeID):
		code, text = wirecapnp.FailedCode_noHandler, "nobody answers "+known.Row.Name+" here"
	case len(s.incoming) >= s.local.OpenRequests:
		code, text = wirecapnp.FailedCode_overloaded, "too many requests are open already"
	default:
		s.incoming[number] = true
		s.emit(Arrived{Type: known, Number: number, Frame: frame})
		return nil
	}
	s.Counters.Refused++
	s.queueFailed(number, code, "", text, len(frame))
	if s.outbox.answers.bytes > s.local.AnswerBytes {
		// Only a peer with an unlimited window of requests gets here, and only if it does not read.
		s.Close(wirecapnp.GoodbyeCode_tooSlow, "too many answers to its requests wait to be taken", now)
	}
	return nil
}

func (s *Session) handleResponse(number uint64, row *Row, known *Type, frame []byte) error {
	open, err := s.isOpen(number)
	if err != nil || !open {
		return err
	}
	if known != nil {
		if found := s.incompatibility(known); found != nil {
			s.emit(AnsweredFailed{Failed{Correlation: number, Code: wirecapnp.FailedCode_incompatibleType, Text: found.String()}})
			return nil
		}
	}
	s.emit(Answered{Number: number, Type: known, Row: row, Frame: frame})
	return nil
}

// isOpen takes note of an answer. False: it is late.
func (s *Session) isOpen(number uint64) (bool, error) {
	if number == 0 || number > s.sentNumber {
		return false, refuse(wirecapnp.GoodbyeCode_unknownCorrelation,
			"an answer to request %d: the last one sent was %d", number, s.sentNumber)
	}
	if !s.outgoing[number] {
		s.Counters.Late++
		return false, nil
	}
	delete(s.outgoing, number)
	return true, nil
}

// --- control messages ---

func (s *Session) handleControl(frame []byte, now time.Time) error {
	message, err := DecodeControl(frame)
	if err != nil {
		return err
	}
	after, err := s.theirs.advance(message)
	if err != nil {
		return refuse(wirecapnp.GoodbyeCode_protocolError, "%v", err)
	}
	s.theirs = after
	switch m := message.(type) {
	case *Hello:
		return s.onHello(m)
	case *Declare:
		return s.onDeclare(m)
	case *Subscriptions:
		return s.onSubscriptions(m, now)
	case *SubscriptionsAck:
		return s.onAck(m.Sequence, now)
	case *Credit:
		if err := s.outbox.eventWindow.refill(m.Events); err != nil {
			return err
		}
		if err := s.outbox.requestWindow.refill(m.Requests); err != nil {
			return err
		}
		s.emit(CreditCame{Events: m.Events, Requests: m.Requests})
	case *Failed:
		open, err := s.isOpen(m.Correlation)
		if open {
			s.emit(AnsweredFailed{*m})
		}
		return err
	case *Ping:
		s.pongDue = true
	case *Dropped:
		for _, dropped := range m.Counts {
			s.Counters.DroppedByPeer += dropped.Count
		}
	case *Goodbye:
		s.end(Ending{Code: m.Code, Text: m.Text, ByPeer: true, Unreadable: m.Unreadable})
	}
	return nil
}

func (s *Session) onHello(m *Hello) error {
	info, err := s.checkHello(m)
	if err != nil {
		return err
	}
	if _, err := s.peerTable.add(m.Types); err != nil {
		return err
	}
	if err := s.outbox.eventWindow.grant(m.EventCredit); err != nil {
		return err
	}
	if err := s.outbox.requestWindow.grant(m.RequestCredit); err != nil {
		return err
	}
	s.Peer = info
	s.emit(PeerHello{*info})
	return nil
}

// checkHello makes the checks of docs/wire.md section 3 up to the table, in their order.
func (s *Session) checkHello(m *Hello) (*PeerInfo, error) {
	if m.ProtocolVersion != ProtocolVersion {
		return nil, refuse(wirecapnp.GoodbyeCode_unsupportedVersion,
			"the peer speaks protocol version %d, this endpoint %q speaks %d: run versions that share one",
			m.ProtocolVersion, s.local.Name, ProtocolVersion)
	}
	if !IsName(m.Name) {
		return nil, refuse(wirecapnp.GoodbyeCode_invalidName,
			"the peer calls itself %.100q: wanted [A-Za-z0-9][A-Za-z0-9._-]{0,99}", m.Name)
	}
	if len(m.Instance) != 16 {
		return nil, refuse(wirecapnp.GoodbyeCode_protocolError,
			"hello of %q has an instance of %d bytes: wanted 16", m.Name, len(m.Instance))
	}
	if len(m.Implementation) > nameTextBytes || len(m.Version) > nameTextBytes {
		return nil, refuse(wirecapnp.GoodbyeCode_protocolError,
			"hello of %q has implementation and version of %d and %d bytes: the limit is %d",
			m.Name, len(m.Implementation), len(m.Version), nameTextBytes)
	}
	if m.FrameLimit < wire.MinFrameLimit || m.FrameLimit > wire.MaxFrame {
		return nil, refuse(wirecapnp.GoodbyeCode_protocolError,
			"hello of %q has frameLimit %d: wanted %d to %d", m.Name, m.FrameLimit, wire.MinFrameLimit, wire.MaxFrame)
	}
	info := &PeerInfo{Name: m.Name, Implementation: m.Implementation, Version: m.Version,
		FrameLimit: int(m.FrameLimit), Features: m.Features}
	copy(info.Instance[:], m.Instance)
	if info.Instance == s.local.Instance {
		return nil, refuse(wirecapnp.GoodbyeCode_duplicate,
			"%q is this endpoint itself: it connected to the address that it serves", m.Name)
	}
	if s.connector && m.Name != s.expected {
		return nil, refuse(wirecapnp.GoodbyeCode_wrongName,
			"the endpoint reached is called %q, wanted %q: correct the path or the name", m.Name, s.expected)
	}
	return info, nil
}

func (s *Session) onDeclare(m *Declare) error {
	affected, err := s.peerTable.add(m.Types)
	if err != nil || s.state != Up {
		return err
	}
	for _, typeID := range affected {
		if _, event := s.peerTable.wireIDs[typeID]; event {
			s.lookAt(typeID)
		}
	}
	return nil
}

func (s *Session) onSubscriptions(m *Subscriptions, now time.Time) error {
	if s.remoteSequence == math.MaxUint64 || m.Sequence != s.remoteSequence+1 {
		return refuse(wirecapnp.GoodbyeCode_protocolError,
			"subscriptions %d after %d: wanted the next", m.Sequence, s.remoteSequence)
	}
	s.remoteSequence = m.Sequence
	for _, typeID := range m.Add {
		if _, declared := s.peerTable.wireIDs[typeID]; !declared {
			return refuse(wirecapnp.GoodbyeCode_unknownId,
				"a subscription to type %#x, which stands in no row with a wire id", typeID)
		}
	}
	added := map[uint64]bool{}
	for _, typeID := range m.Add {
		added[typeID] = true
	}
	changed := SubscriptionsChanged{All: m.All}
	for _, typeID := range m.Remove {
		if s.remote[typeID] && !added[typeID] {
			delete(s.remote, typeID)
			changed.Removed = append(changed.Removed, typeID)
		}
	}
	for _, typeID := range m.Add {
		if !s.remote[typeID] {
			s.remote[typeID] = true
			changed.Added = append(changed.Added, typeID)
		}
	}
	wasAll := s.remoteAll
	s.remoteAll = m.All
	if !m.All && (wasAll || len(changed.Removed) > 0) {
		// What is queued and no longer wanted goes before the acknowledgement does.
		s.outbox.events.keep(func(i *item) bool { return s.remote[i.typeID] })
	}
	if m.AckWanted {
		s.ackDue = m.Sequence
	}
	if s.state == Up && (len(changed.Added)+len(changed.Removed) > 0 || wasAll != m.All) {
		s.emit(changed)
	}
	s.checkUp(now)
	return nil
}

func (s *Session) onAck(sequence uint64, now time.Time) error {
	if sequence == 0 || sequence < s.acked || sequence > s.sequence {
		return refuse(wirecapnp.GoodbyeCode_protocolError,
			"subscriptionsAck %d: wanted %d to %d", sequence, max(1, s.acked), s.sequence)
	}
	if sequence > s.acked {
		s.acked = sequence
		s.ack = ackWatch{}
		s.awaitAck(now)
		s.emit(SubscriptionsApplied{Sequence: sequence})
	}
	return nil
}
