package session

import (
	"fmt"
	"unicode/utf8"

	"capnproto.org/go/capnp/v3"

	"lahja-capn.example/peer/internal/wire"
	"lahja-capn.example/peer/internal/wirecapnp"
)

// Texts that we send are cut to these many bytes (docs/wire.md section 5).
const (
	goodbyeTextBytes = 1024
	failedTextBytes  = 16 * 1024
	nameTextBytes    = 1024
)

// rowsBytes: rows are put into a message until their estimated sizes come to this. The rest of 1 MiB is for the other
// fields of hello.
const rowsBytes = wire.ControlLimit - 64*1024

// EncodeControl returns the frame of a control message. What it is given is ours and checked before, so that an error
// can only be one of memory: it panics.
func EncodeControl(message Control) []byte {
	built, segment, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		panic(err)
	}
	defer built.Release()
	root, err := wirecapnp.NewRootControl(segment)
	if err == nil {
		err = fill(root, message)
	}
	if err != nil {
		panic(fmt.Errorf("a control message cannot be written: %w", err))
	}
	frame, err := wire.Encode(wire.Control, 0, 0, built)
	if err == nil && len(frame) > wire.ControlLimit {
		err = fmt.Errorf("a control frame of %d bytes: the limit is %d", len(frame), wire.ControlLimit)
	}
	if err != nil {
		panic(err)
	}
	return frame
}

func fill(root wirecapnp.Control, message Control) error {
	switch m := message.(type) {
	case *Hello:
		to, err := root.NewHello()
		if err != nil {
			return err
		}
		return fillHello(to, m)
	case *Declare:
		to, err := root.NewDeclare()
		if err != nil {
			return err
		}
		return fillRows(to.NewTypes, m.Types)
	case *Subscriptions:
		to, err := root.NewSubscriptions()
		if err != nil {
			return err
		}
		to.SetSequence(m.Sequence)
		to.SetAll(m.All)
		to.SetAckWanted(m.AckWanted)
		if err := fillIDs(to.NewAdd, m.Add); err != nil {
			return err
		}
		return fillIDs(to.NewRemove, m.Remove)
	case *SubscriptionsAck:
		to, err := root.NewSubscriptionsAck()
		if err != nil {
			return err
		}
		to.SetSequence(m.Sequence)
	case *Credit:
		to, err := root.NewCredit()
		if err != nil {
			return err
		}
		to.SetEvents(m.Events)
		to.SetRequests(m.Requests)
	case *Failed:
		to, err := root.NewFailed()
		if err != nil {
			return err
		}
		to.SetCorrelation(m.Correlation)
		to.SetCode(m.Code)
		if err := to.SetTypeName(cut(m.TypeName, nameTextBytes)); err != nil {
			return err
		}
		return to.SetText(cut(m.Text, failedTextBytes))
	case *Ping:
		root.SetPing()
	case *Pong:
		root.SetPong()
	case *Dropped:
		to, err := root.NewDropped()
		if err != nil {
			return err
		}
		counts, err := to.NewCounts(int32(len(m.Counts)))
		if err != nil {
			return err
		}
		for i, count := range m.Counts {
			counts.At(i).SetTypeId(count.TypeID)
			counts.At(i).SetCount(count.Count)
		}
	case *Goodbye:
		to, err := root.NewGoodbye()
		if err != nil {
			return err
		}
		to.SetCode(m.Code)
		return to.SetText(cut(m.Text, goodbyeTextBytes))
	default:
		return fmt.Errorf("%T is no control message", message)
	}
	return nil
}

func fillHello(to wirecapnp.Hello, m *Hello) error {
	to.SetProtocolVersion(m.ProtocolVersion)
	to.SetFrameLimit(m.FrameLimit)
	to.SetKeepaliveMs(m.KeepaliveMs)
	to.SetEventCredit(m.EventCredit)
	to.SetRequestCredit(m.RequestCredit)
	if err := to.SetName(m.Name); err != nil {
		return err
	}
	if err := to.SetInstance(m.Instance); err != nil {
		return err
	}
	if err := to.SetImplementation(cut(m.Implementation, nameTextBytes)); err != nil {
		return err
	}
	if err := to.SetVersion(cut(m.Version, nameTextBytes)); err != nil {
		return err
	}
	if len(m.Features) > 0 {
		features, err := to.NewFeatures(int32(len(m.Features)))
		if err != nil {
			return err
		}
		for i, feature := range m.Features {
			if err := features.Set(i, feature); err != nil {
				return err
			}
		}
	}
	return fillRows(to.NewTypes, m.Types)
}

func fillRows(newList func(int32) (wirecapnp.TypeRow_List, error), rows []TableRow) error {
	if len(rows) == 0 {
		return nil
	}
	list, err := newList(int32(len(rows)))
	if err != nil {
		return err
	}
	for i := range rows {
		to, row := list.At(i), &rows[i]
		to.SetWireId(row.WireID)
		to.SetKind(row.Kind)
		to.SetTypeId(row.TypeID)
		if err := to.SetName(row.Name); err != nil {
			return err
		}
		if len(row.Layout) == 0 {
			continue
		}
		layout, err := to.NewLayout(int32(len(row.Layout)))
		if err != nil {
			return err
		}
		for k, hash := range row.Layout {
			layout.Set(k, hash)
		}
	}
	return nil
}

func fillIDs(newList func(int32) (capnp.UInt64List, error), ids []uint64) error {
	if len(ids) == 0 {
		return nil
	}
	list, err := newList(int32(len(ids)))
	if err != nil {
		return err
	}
	for i, id := range ids {
		list.Set(i, id)
	}
	return nil
}

// takeRows returns as many of rows as one control message holds.
func takeRows(rows []TableRow) []TableRow {
	total := 0
	for i := range rows {
		// Four words of the row itself, the name with its NUL, the layout; each rounded up to words.
		total += 32 + len(rows[i].Name) + 8 + 4*len(rows[i].Layout) + 8
		if total > rowsBytes && i > 0 {
			return rows[:i]
		}
	}
	return rows
}

// cut makes text UTF-8 of at most limit bytes.
func cut(text string, limit int) string {
	if !utf8.ValidString(text) {
		text = string([]rune(text)) // what is no UTF-8 becomes U+FFFD
	}
	if len(text) <= limit {
		return text
	}
	end := limit - 3
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "..."
}
