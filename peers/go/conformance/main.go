package conformance

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"time"

	peer "lahja-capn.example/peer"
)

// Main is the program: it returns the exit code.
func Main(args []string, in io.Reader, out io.Writer) int {
	log.SetFlags(0)
	log.SetPrefix("conformance (go): ")
	switch {
	case len(args) == 2 && args[0] == "vectors":
		passed, failed, err := RunVectors(args[1], out)
		if err != nil {
			log.Print(err)
			return 1
		}
		fmt.Fprintf(out, "%d passed, %d failed\n", passed, failed)
		if failed > 0 {
			return 1
		}
		return 0
	case len(args) > 0 && args[0] == "peer":
		return runPeer(args[1:], in, out)
	}
	log.Print("usage: conformance vectors DIR | conformance peer --name NAME (--serve PATH | --connect PATH --expect NAME)")
	return 2
}

// program is one endpoint that does what lines of JSON say.
type program struct {
	endpoint     *peer.Endpoint
	subscription *peer.Subscription
	// control runs functions between events, in the goroutine that takes them.
	control chan func()
	held    bool
	wanted  map[*peer.EventType]bool

	mu      sync.Mutex
	out     *json.Encoder
	over    bool
	remote  string
	ups     int
	counted chan struct{} // closed, and made anew, when a Count arrives
	counts  uint64
	ordered bool
	last    uint64
}

func runPeer(args []string, in io.Reader, out io.Writer) int {
	flags := flag.NewFlagSet("conformance peer", flag.ContinueOnError)
	name := flags.String("name", "", "name of the endpoint")
	serve := flags.String("serve", "", "path of the socket to serve")
	connect := flags.String("connect", "", "path of the socket to connect to")
	expect := flags.String("expect", "", "name of the endpoint there")
	eventCredit := flags.Uint64("event-credit", 16<<20, "window in bytes")
	requestCredit := flags.Uint64("request-credit", 4<<20, "window in bytes")
	frameLimit := flags.Int("frame-limit", 64<<20, "bytes")
	keepalive := flags.Int64("keepalive-ms", 60_000, "milliseconds; 0: never")
	handshake := flags.Int64("handshake-ms", 10_000, "milliseconds until a connection must be up")
	if flags.Parse(args) != nil || flags.NArg() > 0 || (*serve == "") == (*connect == "") || (*connect == "") != (*expect == "") {
		log.Print("wanted --name NAME and either --serve PATH or --connect PATH --expect NAME")
		return 2
	}
	p := &program{control: make(chan func()), wanted: map[*peer.EventType]bool{}, counted: make(chan struct{}), ordered: true, out: json.NewEncoder(out)}
	p.out.SetEscapeHTML(false)
	defer p.end()
	config := peer.Config{
		Name:          *name,
		FrameLimit:    *frameLimit,
		EventCredit:   window(*eventCredit),
		RequestCredit: window(*requestCredit),
		Keepalive:     time.Duration(*keepalive) * time.Millisecond,
		Notify:        p.notice,

		HandshakeTimeout: time.Duration(*handshake) * time.Millisecond,
	}
	if *keepalive == 0 {
		config.Keepalive = peer.Never
	}
	for _, name := range typeNames {
		if name != "Late" {
			config.Types = append(config.Types, types[name])
		}
	}
	var err error
	if p.endpoint, err = peer.New(config); err != nil {
		log.Print(err)
		return 2
	}
	if err := p.run(*serve, *connect, *expect, in); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

func window(size uint64) uint64 {
	if size == 0 {
		return peer.None
	}
	return size
}

// Run is Main for the process's own arguments and streams.
func Run() int { return Main(os.Args[1:], os.Stdin, os.Stdout) }
