package peer

import (
	"fmt"
	"time"

	"lahja-capn.example/peer/internal/session"
	"lahja-capn.example/peer/internal/wirecapnp"
)

const (
	codeShutdown  = wirecapnp.GoodbyeCode_shutdown
	codeDuplicate = wirecapnp.GoodbyeCode_duplicate
	codeNameInUse = wirecapnp.GoodbyeCode_nameInUse
	codeReplaced  = wirecapnp.GoodbyeCode_replaced
	codeTooSlow   = wirecapnp.GoodbyeCode_tooSlow
)

// settle decides about a connection whose peer has just said a valid hello: docs/wire.md section 13, whose numbers
// stand below. Called with mu held.
func (e *Endpoint) settle(c *conn) {
	own, name := e.config.Name, c.name()
	if c.session.State() != session.Handshake {
		return // it said goodbye, or broke a rule, right behind its hello
	}
	if e.closed {
		c.close(codeShutdown, fmt.Sprintf("endpoint %q stops", own))
		return
	}
	// 1
	if name == own {
		c.close(codeNameInUse, fmt.Sprintf("the endpoint you reached is itself called %q", own))
		return
	}
	// 2
	if rival := e.dialing[name]; rival != nil && !c.dialed {
		if own < name {
			c.close(codeDuplicate, fmt.Sprintf("%q is connecting to %q already", own, name))
			return
		}
		rival.close(codeDuplicate, fmt.Sprintf("%q connected to %q first", name, own))
	}
	held := e.holders[name]
	switch {
	case held == nil: // 3
		e.accept(c)
	case held.session.Peer.Instance != c.session.Peer.Instance: // 4
		e.probe(held, c)
	case held.dialed == c.dialed: // 5
		held.close(codeReplaced, "a newer connection of the same endpoint took over")
		e.accept(c)
	case c.dialed == (own < name): // 6
		held.close(codeDuplicate, "both sides connected; the connection opened by the lower name stays")
		e.accept(c)
	default:
		c.close(codeDuplicate, "both sides connected; the connection opened by the lower name stays")
	}
}

// accept lets a connection come up.
func (e *Endpoint) accept(c *conn) {
	e.holders[c.name()] = c
	if e.dialing[c.name()] == c {
		delete(e.dialing, c.name())
	}
	c.accepted = true
	want := make([]uint64, 0, len(e.interest))
	for typeID := range e.interest {
		want = append(want, typeID)
	}
	c.session.Accept(want, len(e.everything) > 0, time.Now())
	c.after()
}

// probe finds out whether the connection that holds a name still lives, now that another endpoint claims the name.
func (e *Endpoint) probe(held, newcomer *conn) {
	asked := time.Now()
	held.session.Ping()
	held.after()
	go func() {
		held.awaitByte(asked, e.config.ProbeTimeout)
		e.mu.Lock()
		defer e.mu.Unlock()
		if newcomer.ending != nil {
			return
		}
		switch {
		case e.holders[newcomer.name()] != held:
			// It has gone, and perhaps another one holds the name by now.
			e.settle(newcomer)
		case held.lastHeard().After(asked) || readable(held.socket):
			newcomer.close(codeNameInUse, fmt.Sprintf("another, living endpoint is connected to %q as %q; "+
				"choose another name", e.config.Name, newcomer.name()))
		default:
			held.close(codeReplaced, fmt.Sprintf("silent for %v, and its name was claimed", e.config.ProbeTimeout))
			e.accept(newcomer)
		}
	}()
}

// awaitByte returns when a byte has come after since, the connection has ended, or the time is over. Called without mu.
func (c *conn) awaitByte(since time.Time, patience time.Duration) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		// First the channel, then the look: a byte that comes between the two closes it.
		c.endpoint.mu.Lock()
		probed := c.probed.Load()
		if probed == nil {
			fresh := make(chan struct{})
			probed = &fresh
			c.probed.Store(probed)
		}
		over := c.ending != nil || c.lastHeard().After(since)
		c.endpoint.mu.Unlock()
		if over {
			return
		}
		select {
		case <-*probed:
		case <-timer.C:
			return
		}
	}
}
