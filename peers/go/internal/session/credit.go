package session

import (
	"math"

	"lahja-capn.example/peer/internal/wire"
	"lahja-capn.example/peer/internal/wirecapnp"
)

// Unlimited is a window that never runs out: docs/wire.md section 8.
const Unlimited = math.MaxUint64

// sendWindow is credit that the peer granted us.
type sendWindow struct {
	balance   int64
	unlimited bool
}

func (w *sendWindow) open() bool { return w.unlimited || w.balance > 0 }

// charge takes a whole frame; the balance may go below zero by it.
func (w *sendWindow) charge(size int) {
	if !w.unlimited {
		w.balance -= int64(size)
	}
}

func (w *sendWindow) grant(size uint64) error {
	if size == Unlimited {
		w.unlimited = true
		return nil
	}
	return w.refill(size)
}

// refill adds what a credit message gives back. About an unlimited window it says nothing.
func (w *sendWindow) refill(size uint64) error {
	if w.unlimited {
		return nil
	}
	if size > math.MaxInt64 || w.balance > 0 && size > uint64(math.MaxInt64-w.balance) {
		return wire.Errorf(wirecapnp.GoodbyeCode_protocolError,
			"credit of %d bytes on a balance of %d: the most is 2^63 - 1, or 2^64 - 1 in hello for unlimited", size, w.balance)
	}
	w.balance += int64(size)
	return nil
}

// receiveWindow is credit that we granted the peer: what it may still send, and what came back and was not told yet.
type receiveWindow struct {
	window  uint64
	balance int64
	pending int64
}

// start is called when our hello, which names the window, is queued: nothing may come before.
func (w *receiveWindow) start() {
	if w.window != Unlimited {
		w.balance = int64(w.window)
	}
}

// charge counts a frame that arrived. False: the peer had no credit for it.
func (w *receiveWindow) charge(size int) bool {
	if w.window == Unlimited {
		return true
	}
	if w.balance <= 0 {
		return false
	}
	w.balance -= int64(size)
	return true
}

// isUsedUp is true while the peer may send nothing more of the kind.
func (w *receiveWindow) isUsedUp() bool { return w.window != Unlimited && w.balance <= 0 }

// giveBack counts size bytes as returned. True: the peer must be told, half of the window has come back.
func (w *receiveWindow) giveBack(size int) bool {
	if w.window == Unlimited {
		return false
	}
	w.pending += int64(size)
	// In floating point no sum overflows, and a byte more or less is no matter.
	return 2*float64(w.pending) >= float64(w.window)
}

func (w *receiveWindow) takePending() uint64 {
	pending := w.pending
	w.pending = 0
	w.balance += pending
	return uint64(pending)
}
