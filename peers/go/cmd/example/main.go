// Command example is a guest of another endpoint: it prints each Count that it sees, says so in an Evolving of its own,
// asks one question, and answers what it is asked.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	peer "lahja-capn.example/peer"
	"lahja-capn.example/peer/conformance"
	"lahja-capn.example/peer/conformance/events"
)

func main() {
	path := flag.String("connect", "", "path of the socket to connect to")
	expect := flag.String("expect", "", "name of the endpoint there")
	name := flag.String("name", "", "name of this endpoint")
	flag.Parse()
	if *path == "" || *expect == "" || *name == "" {
		fmt.Fprintln(os.Stderr, "usage: example --connect PATH --expect NAME --name NAME")
		os.Exit(2)
	}
	log.SetFlags(0)
	if err := run(*name, *expect, *path); err != nil {
		log.Fatal(err)
	}
}

func run(name, expect, path string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan peer.Notice, 1)
	endpoint, err := peer.New(peer.Config{Name: name, Notify: func(n peer.Notice) {
		if n.Kind == peer.PeerDown {
			ended <- n
		}
	}})
	if err != nil {
		return err
	}
	defer endpoint.Close(ctx)

	if err := endpoint.Handle(conformance.Ask, answer); err != nil {
		return err
	}
	counts, err := endpoint.Subscribe(conformance.Count)
	if err != nil {
		return err
	}
	if err := endpoint.Connect(ctx, expect, path); err != nil {
		return err
	}
	go ask(ctx, endpoint, expect)

	received := counts.Events(ctx)
	for {
		select {
		case event := <-received:
			if err := report(ctx, endpoint, event); err != nil {
				return err
			}
		case end := <-ended:
			reason := end.Text
			if end.Code != "" {
				// The text is for people and may be empty.
				reason = strings.TrimSuffix(fmt.Sprintf("goodbye %s: %s", end.Code, end.Text), ": ")
			}
			fmt.Printf("%s is gone: %s\n", end.Peer, reason)
			if end.Code != "shutdown" || !end.ByPeer {
				return fmt.Errorf("the connection to %s ended with %q", end.Peer, end.Code)
			}
			return nil
		}
	}
}

func report(ctx context.Context, endpoint *peer.Endpoint, event *peer.Event) error {
	count, err := conformance.Count.Read(event)
	if err != nil {
		return err
	}
	fmt.Printf("has seen Count %d of %s\n", count.Number(), event.From)
	message, err := conformance.Evolving.New(func(e events.Evolving) error {
		e.SetNumber(uint32(count.Number()))
		return e.SetText(fmt.Sprintf("%s has seen %d", endpoint.Name(), count.Number()))
	})
	if err != nil {
		return err
	}
	return endpoint.Broadcast(ctx, message)
}

func ask(ctx context.Context, endpoint *peer.Endpoint, expect string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	question, err := conformance.Ask.New(func(a events.Ask) error { a.SetNumber(21); return nil })
	if err != nil {
		log.Fatal(err)
	}
	response, err := endpoint.RequestTo(ctx, expect, question, conformance.Answer)
	if err != nil {
		fmt.Printf("asked %s for twice 21: %v\n", expect, err)
		return
	}
	answer, err := conformance.Answer.Read(response)
	if err != nil {
		log.Fatal(err)
	}
	text, err := answer.Text()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("asked %s for twice 21: %d, %q\n", expect, answer.Number(), text)
}

func answer(_ context.Context, request *peer.Event) (*peer.Message, error) {
	ask, err := conformance.Ask.Read(request)
	if err != nil {
		return nil, err
	}
	fmt.Printf("is asked by %s for twice %d\n", request.From, ask.Number())
	return conformance.Answer.New(func(a events.Answer) error {
		a.SetNumber(2 * ask.Number())
		return a.SetText(fmt.Sprintf("twice %d", ask.Number()))
	})
}
