package peer

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Broadcast sends an event to every connected peer that subscribes to its type. It returns when the event is queued for
// all of them: it waits for peers whose queue is full, and ends the connection to one that takes nothing for TooSlow.
// That nobody wants the event is no error. If it is too large for every peer that wants it, that is a *FrameTooLarge.
func (e *Endpoint) Broadcast(ctx context.Context, message *Message) error {
	return e.broadcast(ctx, "", message)
}

// BroadcastTo is Broadcast to one peer alone.
func (e *Endpoint) BroadcastTo(ctx context.Context, peer string, message *Message) error {
	return e.broadcast(ctx, peer, message)
}

// wanting returns the connected peers that want a type; only that one if peer is not "".
func (e *Endpoint) wanting(known *EventType, peer string) []*conn {
	var found []*conn
	for name, c := range e.up {
		if (peer == "" || peer == name) && c.session.Wants(&known.core) {
			found = append(found, c)
		}
	}
	return found
}

func (e *Endpoint) broadcast(ctx context.Context, peer string, message *Message) error {
	known := message.eventType
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	wireID, err := e.learn(known)
	if err != nil {
		return err
	}
	frame := message.eventFrame(wireID)
	var full []*conn
	var tooLarge error
	queued := false
	queue := func(c *conn) {
		if err := c.session.QueueEvent(&known.core, frame); err != nil {
			tooLarge = err
		} else {
			queued = true
		}
		c.after()
	}
	for _, c := range e.wanting(known, peer) {
		if c.session.EventBytes() < e.config.QueueBytes {
			queue(c)
		} else {
			full = append(full, c)
		}
	}
	for _, c := range full {
		if err := e.room(ctx, c, c.session.EventBytes, &c.eventsTaken); err != nil {
			return err
		}
		if c.isUp && c.session.Wants(&known.core) {
			queue(c)
		}
	}
	if !queued && tooLarge != nil {
		return tooLarge
	}
	return nil
}

// room waits until less than QueueBytes are queued, or the connection has ended. A peer that takes nothing of that kind
// for TooSlow must not hold its publisher for ever.
func (e *Endpoint) room(ctx context.Context, c *conn, queued func() int, taken *atomic.Int64) error {
	since := time.Now()
	err := e.wait(ctx, func() (bool, time.Time) {
		if c.ending != nil || queued() < e.config.QueueBytes {
			return true, time.Time{}
		}
		last := e.start.Add(time.Duration(taken.Load()))
		if last.Before(since) {
			last = since
		}
		patience := last.Add(e.config.TooSlow)
		if time.Now().Before(patience) {
			return false, patience
		}
		c.close(codeTooSlow, fmt.Sprintf("took nothing of a full queue for %v while %d bytes waited", e.config.TooSlow, c.session.QueuedBytes()))
		return true, time.Time{}
	})
	if err == nil && e.closed {
		return ErrClosed
	}
	return err
}
