package session

import (
	"time"

	"lahja-capn.example/peer/internal/wirecapnp"
)

// Pull returns the frames to send next, of at least one frame and about limit bytes if there is so much. They count
// as sent. After the last one SendFinished is true.
func (s *Session) Pull(limit int) [][]byte {
	if s.goodbye != nil {
		frame := s.goodbye
		s.goodbye = nil
		s.sendFinished = true
		return [][]byte{frame}
	}
	if s.state == Closing || s.state == Closed {
		return nil
	}
	var frames [][]byte
	total := 0
	add := func(frame []byte) {
		frames = append(frames, frame)
		total += len(frame)
	}
	for s.outbox.control.len() > 0 && total < limit {
		add(s.outbox.control.pop().frame)
	}
	if s.outbox.control.len() == 0 {
		s.pullDue(add)
	}
	for s.outbox.answers.len() > 0 && total < limit {
		answer := s.outbox.answers.pop()
		add(answer.frame)
		s.sentAnswers++
		if answer.credit > 0 {
			s.ReturnRequestCredit(answer.credit)
		}
	}
	for s.outbox.requests.len() > 0 && total < limit && s.outbox.requestWindow.open() {
		request := s.outbox.requests.pop()
		s.outbox.requestWindow.charge(len(request.frame))
		s.sentNumber = request.number
		add(request.frame)
	}
	for s.outbox.events.len() > 0 && total < limit && s.outbox.eventWindow.open() {
		event := s.outbox.events.pop()
		s.outbox.eventWindow.charge(len(event.frame))
		s.Counters.SentEvents++
		add(event.frame)
	}
	return frames
}

// pullDue makes the messages of which one stands for many.
func (s *Session) pullDue(add func([]byte)) {
	now := func(message Control) { add(EncodeControl(message)) }
	if s.ours == introduced || s.ours == active {
		if s.pongDue {
			s.pongDue = false
			now(&Pong{})
		}
		if s.pingDue {
			s.pingDue = false
			now(&Ping{})
		}
	}
	if s.ours != active {
		return
	}
	if s.ackDue > 0 {
		now(&SubscriptionsAck{Sequence: s.ackDue})
		s.ackDue = 0
	}
	if s.creditDue {
		s.creditDue = false
		credit := Credit{Events: s.eventWindow.takePending(), Requests: s.requestWindow.takePending()}
		if credit.Events > 0 || credit.Requests > 0 {
			now(&credit)
		}
	}
}

// HasOutput is true if Pull would return something.
func (s *Session) HasOutput() bool {
	if s.goodbye != nil {
		return true
	}
	if s.state == Closing || s.state == Closed {
		return false
	}
	o := &s.outbox
	return o.control.len() > 0 || o.answers.len() > 0 ||
		o.requests.len() > 0 && o.requestWindow.open() ||
		o.events.len() > 0 && o.eventWindow.open() ||
		(s.pongDue || s.pingDue) && s.ours != opening ||
		s.ours == active && (s.ackDue > 0 || s.creditDue)
}

// SendFinished is true when the last frame was pulled: end this direction of the stream when it is written.
func (s *Session) SendFinished() bool { return s.sendFinished }

// --- time and end ---

// Deadline is when HandleTime wants to be called; the zero time if never.
func (s *Session) Deadline() time.Time {
	switch s.state {
	case Handshake:
		return s.handshakeDeadline
	case Up:
		return earliest(s.keepalive.deadline(), s.creditLook, s.ack.deadline)
	case Closing:
		return s.closeDeadline
	default:
		return time.Time{}
	}
}

// WouldJudge is true if HandleTime, called now, could end the connection because the peer is silent: its owner first
// makes sure that nothing readable lies unread.
func (s *Session) WouldJudge() bool {
	return s.state == Handshake || s.state == Up && s.keepalive.asked+1 >= s.keepalive.misses
}

// HandleTime acts on the deadline, if it has passed.
func (s *Session) HandleTime(now time.Time) {
	if !isDue(s.Deadline(), now) {
		return
	}
	switch s.state {
	case Handshake:
		s.Close(wirecapnp.GoodbyeCode_handshakeTimeout, "the handshake took longer than "+s.local.HandshakeTimeout.String(), now)
	case Up:
		s.handleTimeUp(now)
	case Closing:
		s.state = Closed
	}
}

func (s *Session) handleTimeUp(now time.Time) {
	if isDue(s.creditLook, now) {
		s.lookAtCredit(now)
	}
	if isDue(s.keepalive.deadline(), now) {
		if s.keepalive.ask(now) {
			s.pingDue = true
		} else {
			s.Close(wirecapnp.GoodbyeCode_keepaliveTimeout, s.keepalive.describe(now), now)
		}
	}
	if isDue(s.ack.deadline, now) {
		s.lookAtAck(now)
	}
}

// Heard says that bytes arrived, up to now.
func (s *Session) Heard(now time.Time) { s.keepalive.received(now) }

// Close ends the connection from our side: goodbye is the last frame, what is queued is dropped.
func (s *Session) Close(code wirecapnp.GoodbyeCode, text string, now time.Time) {
	if s.state == Closing || s.state == Closed {
		return
	}
	s.goodbye = EncodeControl(&Goodbye{Code: code, Text: text})
	s.ours = ended
	s.outbox.clear()
	s.state = Closing
	s.closeDeadline = now.Add(s.local.CloseTimeout)
	s.emit(Ended{Ending{Code: code, Text: text}})
}

// Lost says that the stream has ended, or broke: nothing can be read or sent any more.
func (s *Session) Lost(reason string) {
	s.end(Ending{Text: reason, ByPeer: true, Lost: true})
}

func (s *Session) end(ending Ending) {
	if s.state == Closed {
		return
	}
	if s.state != Closing {
		s.outbox.clear()
		s.emit(Ended{ending})
	}
	s.goodbye = nil
	s.state = Closed
	s.ours, s.theirs = ended, ended
	s.sendFinished = true
}
