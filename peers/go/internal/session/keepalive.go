package session

import (
	"fmt"
	"time"
)

// keepalive says when to ask a silent peer whether it lives, and when to give it up. Only a peer that left misses - 1
// pings unanswered for an interval each is dead: if this process was stopped for long, the first look at the clock
// asks, it does not judge.
type keepalive struct {
	interval time.Duration
	misses   int
	last     time.Time
	asked    int
	askedAt  time.Time
}

func (k *keepalive) received(now time.Time) {
	if now.After(k.last) {
		k.last = now
		k.asked = 0
	}
}

// deadline is the zero time if there is none.
func (k *keepalive) deadline() time.Time {
	if k.interval <= 0 {
		return time.Time{}
	}
	if k.asked > 0 {
		return k.askedAt.Add(k.interval)
	}
	return k.last.Add(k.interval)
}

// ask is called when the deadline has passed. True: send a ping. False: the peer is dead.
func (k *keepalive) ask(now time.Time) bool {
	k.asked++
	k.askedAt = now
	return k.asked < k.misses
}

func (k *keepalive) describe(now time.Time) string {
	return fmt.Sprintf("no byte for %v: %d pings, %v apart, were not answered", now.Sub(k.last), k.misses-1, k.interval)
}
