package session

// outbox holds frames until they can be sent: control messages before answers, these before requests, these before
// events, so that a peer without credit for events still gets the rest.
type outbox struct {
	control  queue
	answers  queue
	requests queue
	events   queue

	eventWindow   sendWindow
	requestWindow sendWindow
}

// item is a frame that waits.
type item struct {
	frame  []byte
	typeID uint64
	// number is that of a request.
	number uint64
	// credit is what the peer gets back for the request that a `failed` of ours answers, when that is sent.
	credit int
}

// queue is first in, first out. Its zero value is empty.
type queue struct {
	items []item
	head  int
	bytes int
}

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) push(i item) {
	q.items = append(q.items, i)
	q.bytes += len(i.frame)
}

func (q *queue) pop() item {
	i := q.items[q.head]
	q.items[q.head] = item{}
	q.head++
	q.bytes -= len(i.frame)
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	} else if q.head >= 1024 && 2*q.head >= len(q.items) {
		rest := copy(q.items, q.items[q.head:])
		clear(q.items[rest:])
		q.items, q.head = q.items[:rest], 0
	}
	return i
}

// keep drops every item that keep says no to.
func (q *queue) keep(keep func(*item) bool) {
	kept := q.items[:0]
	q.bytes = 0
	for _, i := range q.items[q.head:] {
		if keep(&i) {
			kept = append(kept, i)
			q.bytes += len(i.frame)
		}
	}
	clear(q.items[len(kept):])
	q.items, q.head = kept, 0
}

func (o *outbox) bytes() int {
	return o.control.bytes + o.answers.bytes + o.requests.bytes + o.events.bytes
}

func (o *outbox) clear() {
	o.control, o.answers, o.requests, o.events = queue{}, queue{}, queue{}, queue{}
}
