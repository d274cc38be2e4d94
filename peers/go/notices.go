package peer

import "sync"

// maxNotices wait for a Notify that takes its time; then notices of subscriptions are dropped, which are the only ones
// that a peer can make many of.
const maxNotices = 10_000

// notices calls Config.Notify, in a goroutine of its own.
type notices struct {
	notify func(Notice)

	mu      sync.Mutex
	filled  *sync.Cond
	queue   []Notice
	stopped bool
	done    chan struct{}
}

func (n *notices) start(notify func(Notice)) {
	n.notify = notify
	n.filled = sync.NewCond(&n.mu)
	n.done = make(chan struct{})
	if notify == nil {
		close(n.done)
		return
	}
	go n.run()
}

func (n *notices) run() {
	defer close(n.done)
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		for len(n.queue) == 0 {
			if n.stopped {
				return
			}
			n.filled.Wait()
		}
		batch := n.queue
		n.queue = nil
		n.mu.Unlock()
		for _, notice := range batch {
			n.notify(notice)
		}
		n.mu.Lock()
	}
}

func (n *notices) add(notice Notice) {
	if n.notify == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queue) >= maxNotices && (notice.Kind == PeerSubscribed || notice.Kind == PeerUnsubscribed) {
		return
	}
	n.queue = append(n.queue, notice)
	n.filled.Signal()
}

// stop lets the goroutine end when all was told. It does not wait: Notify may be what called Close.
func (n *notices) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopped = true
	n.filled.Signal()
}
