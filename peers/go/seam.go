package peer

import "lahja-capn.example/peer/internal/session"

// The two methods below are for the conformance program, which runs the vectors on a session alone. Other modules
// cannot use what the first returns.

// Core is the type as sessions know it.
func (t *EventType) Core() *session.Type { return &t.core }

// Frame returns a copy of the message's frame.
func (m *Message) Frame() []byte { return m.ownFrame() }
