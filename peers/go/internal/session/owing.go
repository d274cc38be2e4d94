package session

import (
	"time"

	"lahja-capn.example/peer/internal/wirecapnp"
)

// creditRest: a peer whose balance is 0 or below gets what is owed to it this often, however little that is. So it can
// tell a slow receiver from one that takes nothing. docs/wire.md section 8 allows 1 s. Not at once: the consumer may be
// slow, and then each event would cost a message.
const creditRest = 500 * time.Millisecond

// ackGrace follows the time in which a peer has to acknowledge. If this process was stopped for long, the
// acknowledgement lies unread in the socket: the first look at the clock waits, it does not judge.
const ackGrace = time.Second

// ackWatch says when a peer has owed an acknowledgement for too long. Its zero value waits for none.
type ackWatch struct {
	deadline time.Time
	late     bool
}

func (w *ackWatch) start(until time.Time) { *w = ackWatch{deadline: until} }

// usedUp is called when a frame was charged to one of the peer's windows.
func (s *Session) usedUp(w *receiveWindow, now time.Time) {
	if w.isUsedUp() && s.creditLook.IsZero() {
		s.creditLook = now.Add(creditRest)
	}
}

// lookAtCredit gives a peer that may send nothing what is owed to it, and looks again as long as it may not.
func (s *Session) lookAtCredit(now time.Time) {
	s.creditLook = time.Time{}
	for _, w := range []*receiveWindow{&s.eventWindow, &s.requestWindow} {
		if w.isUsedUp() {
			s.creditDue = s.creditDue || w.pending > 0
			s.creditLook = now.Add(creditRest)
		}
	}
}

// awaitAck starts the peer's time to acknowledge our subscriptions, unless it runs. It does not before the connection
// is up: an acknowledgement follows the peer's own first subscriptions.
func (s *Session) awaitAck(now time.Time) {
	if s.state == Up && s.acked < s.sequence && s.ack.deadline.IsZero() {
		s.ack.start(now.Add(s.local.AckTimeout))
	}
}

func (s *Session) lookAtAck(now time.Time) {
	if !s.ack.late {
		s.ack = ackWatch{deadline: now.Add(ackGrace), late: true}
		return
	}
	s.Close(wirecapnp.GoodbyeCode_protocolError,
		"subscriptions were not acknowledged within "+s.local.AckTimeout.String(), now)
}

// isDue is true if a deadline has passed. The zero time is none.
func isDue(deadline, now time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }

// earliest of several deadlines; the zero time if there is none.
func earliest(deadlines ...time.Time) time.Time {
	var first time.Time
	for _, deadline := range deadlines {
		if !deadline.IsZero() && (first.IsZero() || deadline.Before(first)) {
			first = deadline
		}
	}
	return first
}
