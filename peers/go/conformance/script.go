package conformance

import (
	"encoding/binary"
	"fmt"
	"slices"

	"lahja-capn.example/peer/internal/session"
)

func (v *vector) runScript(piece int) error {
	setup, _ := v.facts["setup"].(object)
	c := newConsumer(to[string](v.facts["role"]), setup)
	at, found := 0, 0
	for i, step := range each(v.facts["script"], to[object]) {
		where := fmt.Sprintf("step %d %.100v", i, step)
		switch {
		case step["send"] != nil:
			n := int(toInt(step["send"]))
			if at+n > len(v.data) {
				return fmt.Errorf("%s: the file ends before", where)
			}
			data := slices.Clone(v.data[at : at+n])
			at += n
			for _, p := range each(orEmpty(step["patch"]), to[object]) {
				c.patch(data, p)
			}
			c.receive(data, piece)
		case step["await"] != nil:
			match := to[object](step["await"])
			for ; ; found++ {
				if found >= len(c.frames) {
					return fmt.Errorf("%s: not sent. Sent: %v; %v", where, show(c.frames, func(f object) any { return f["sent"] }), c.facts)
				}
				if c.matches(found, match) {
					found++
					break
				}
			}
		case step["count"] != nil:
			n := int32(0)
			for _, frame := range c.frames {
				if frame["sent"] == step["count"] {
					n++
				}
			}
			if err := equal(number(n), step["is"], where); err != nil {
				return err
			}
		case step["do"] != nil:
			c.do(step)
		case step["eof"] == true:
			c.session.Lost("end of stream")
			c.settle()
		default:
			return fmt.Errorf("%s: not known", where)
		}
	}
	if at != len(v.data) {
		return fmt.Errorf("%d bytes are in no step", len(v.data)-at)
	}
	return v.compare(c)
}

func (c *consumer) patch(data []byte, p object) {
	value := c.sequence
	if p["request"] != nil {
		value = c.requests[toInt(p["request"])-1]
	}
	if p["plus"] != nil {
		value += uint64(toInt(p["plus"]))
	}
	binary.LittleEndian.PutUint64(data[toInt(p["at"]):], value)
}

// matches is true if the frame at index i, given those before it, is what a script awaits.
func (c *consumer) matches(i int, match object) bool {
	frame := c.frames[i]
	if frame["sent"] != match["sent"] {
		return false
	}
	for key, wanted := range match {
		switch {
		case key == "sent":
		case frame["sent"] == "credit":
			sum := uint64(0)
			for _, before := range c.frames[:i+1] {
				if before["sent"] == "credit" {
					sum += toU64(before[key])
				}
			}
			if sum < toU64(wanted) {
				return false
			}
		case key == "add" || key == "remove":
			for _, name := range each(wanted, to[string]) {
				if !slices.Contains(each(frame[key], toU64), types[name].TypeID()) {
					return false
				}
			}
		case key == "types":
			rows := each(frame["types"], buildRow)
			for _, name := range each(wanted, to[string]) {
				declared := func(row session.TableRow) bool { return row.WireID != 0 && row.TypeID == types[name].TypeID() }
				if !slices.ContainsFunc(rows, declared) {
					return false
				}
			}
		default:
			if equal(frame[key], wanted, "") != nil {
				return false
			}
		}
	}
	return true
}

var (
	seenKinds = []string{"up", "event", "request", "answered", "failed", "lost", "closed"}
	sentKinds = []string{"event", "request", "response", "failed", "goodbye"}
)

// compare judges what the user saw, and what was sent of the kinds that are compared one by one.
func (v *vector) compare(c *consumer) error {
	wanted := each(v.facts["expect"], to[object])
	if v.folder == "refusals" {
		closed := v.refused(c)
		wanted = append(wanted, object{"closed": closed}, object{"sent": "goodbye", "code": closed["code"]})
	}
	for _, kind := range seenKinds {
		has := func(fact object) bool { return fact[kind] != nil && fact["sent"] == nil }
		want, have := filter(wanted, has), filter(c.facts, has)
		if len(have) != len(want) {
			return fmt.Errorf("%s: %d, wanted %d: %.300v", kind, len(have), len(want), have)
		}
		for i := range want {
			if err := equalFact(kind, have[i][kind], want[i][kind]); err != nil {
				return err
			}
		}
	}
	for _, kind := range sentKinds {
		has := func(fact object) bool { return fact["sent"] == kind }
		want, have := filter(wanted, has), filter(c.frames, has)
		if len(have) != len(want) {
			return fmt.Errorf("sent %s: %d, wanted %d: %.300v", kind, len(have), len(want), have)
		}
		for i := range want {
			for key, value := range want[i] {
				if err := equal(have[i][key], value, "sent "+kind+"."+key); err != nil {
					return err
				}
			}
		}
	}
	counters, _ := v.facts["counters"].(object)
	for name, value := range counters {
		have := map[string]uint64{"skipped": c.session.Counters.Skipped, "late": c.session.Counters.Late}
		if n, ok := have[name]; ok {
			if err := equal(number(int32(n)), value, "counter "+name); err != nil {
				return err
			}
		}
	}
	return nil
}

// refused is what the user learned of a refusal, which must have been the last thing that was sent.
func (v *vector) refused(c *consumer) object {
	for _, fact := range c.facts {
		closed, ok := fact["closed"].(object)
		if !ok {
			continue
		}
		if !slices.Contains(to[array](v.facts["goodbye"]), closed["code"]) || closed["by_peer"] != false {
			panic(failure{fmt.Errorf("closed %v, wanted goodbye %v", closed, v.facts["goodbye"])})
		}
		if last := c.frames[len(c.frames)-1]; last["sent"] != "goodbye" || !c.session.SendFinished() {
			panic(failure{fmt.Errorf("the last frame is %v, wanted goodbye and the end of the stream", last)})
		}
		return closed
	}
	panic(failure{fmt.Errorf("not refused, wanted goodbye %v; saw %.300v", v.facts["goodbye"], c.facts)})
}

func filter(facts []object, keep func(object) bool) []object {
	var kept []object
	for _, fact := range facts {
		if keep(fact) {
			kept = append(kept, fact)
		}
	}
	return kept
}

func equalFact(kind string, got, wanted any) error {
	want, isObject := wanted.(object)
	if !isObject {
		return equal(got, wanted, kind)
	}
	have := got.(object)
	if want["unreadable"] == true {
		return equal(have["type"], want["type"], kind)
	}
	for key, value := range want {
		if kind == "closed" && key == "code" && value == nil {
			continue // whatever could be read of it
		}
		if err := equal(have[key], value, kind+"."+key); err != nil {
			return err
		}
	}
	return nil
}
