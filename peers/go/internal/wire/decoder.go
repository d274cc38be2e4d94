package wire

import "errors"

// decoderBuffer is what one read may take. Frames that fit are copied out of it, once, into memory of their own, so
// that a kept event keeps nothing else alive; larger ones are received straight into theirs.
const decoderBuffer = 64 << 10

// Decoder cuts a stream into frames. Its owner puts bytes into Buffer, says how many to Received, and then calls Next
// until that has no frame.
type Decoder struct {
	frameLimit int
	buffer     []byte
	start, end int
	// large is the frame that is being received into its own memory, of which have bytes are there.
	large  []byte
	have   int
	header Header
	// later is true once a first frame was in order.
	later bool
}

// NewDecoder returns a decoder for content of at most frameLimit bytes.
func NewDecoder(frameLimit int) *Decoder {
	return &Decoder{frameLimit: frameLimit, buffer: make([]byte, decoderBuffer)}
}

// Buffer is where the next bytes go; it is never empty, if Next was called until it had no frame.
func (d *Decoder) Buffer() []byte {
	if d.large != nil {
		return d.large[d.have:]
	}
	if d.start > 0 {
		d.end = copy(d.buffer, d.buffer[d.start:d.end])
		d.start = 0
	}
	return d.buffer[d.end:]
}

// Received says that n bytes were put into Buffer.
func (d *Decoder) Received(n int) {
	if d.large != nil {
		d.have += n
	} else {
		d.end += n
	}
}

// Inside is true if the last frame is not whole.
func (d *Decoder) Inside() bool { return d.large != nil || d.end > d.start }

// Next returns the next whole frame, or a nil one if more bytes are wanted. judge may refuse a header before memory is
// taken for its frame; it may be asked about the same one again. An error is final.
func (d *Decoder) Next(judge func(Header) error) (Header, []byte, error) {
	if d.large != nil {
		if d.have < len(d.large) {
			return Header{}, nil, nil
		}
		frame := d.large
		d.large = nil
		return d.header, frame, nil
	}
	rest := d.buffer[d.start:d.end]
	if !d.later && len(rest) >= 4 {
		// What is no peer at all may send few bytes and wait: the first four tell.
		if err := CheckLength(rest, max(d.frameLimit, ControlLimit)); err != nil {
			return Header{}, nil, d.stranger(err)
		}
	}
	if len(rest) < HeaderSize {
		return Header{}, nil, nil
	}
	header, err := ParseHeader(rest, d.frameLimit)
	if err == nil {
		err = judge(header)
	}
	if err != nil {
		if !d.later {
			err = d.stranger(err)
		}
		return Header{}, nil, err
	}
	d.later = true
	if header.Size <= len(rest) {
		frame := make([]byte, header.Size)
		copy(frame, rest)
		d.start += header.Size
		return header, frame, nil
	}
	if header.Size > len(d.buffer) {
		d.header = header
		d.large = make([]byte, header.Size)
		d.have = copy(d.large, rest)
		d.start, d.end = 0, 0
	}
	return Header{}, nil, nil
}

// stranger adds the first bytes to the refusal of a first frame: the other end is probably no peer at all.
func (d *Decoder) stranger(err error) error {
	var refusal *Error
	if !errors.As(err, &refusal) {
		return err
	}
	start := d.buffer[d.start:min(d.end, d.start+16)]
	return Errorf(refusal.Code, "the other end is probably no lahja_capn endpoint: its first bytes are %q (%v)", start, refusal)
}
