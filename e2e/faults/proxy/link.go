package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Link carries bytes between a listening socket and a target, both "unix" or
// "tcp". It can be taken down, when connections break and are refused, and be
// made to hang, when they are taken and nothing comes through.
type Link struct {
	network, target string
	listen          net.Listener
	all             sync.WaitGroup

	mu    sync.Mutex
	state linkState
	moved chan struct{} // closed at the next change of state
	conns map[net.Conn]struct{}
}

type linkState int

const (
	up linkState = iota
	down
	hanging
	closed
)

// NewLink starts a link.
func NewLink(ctx context.Context, network, listen, target string) (*Link, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, network, listen)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	l := &Link{network: network, target: target, listen: listener, moved: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	l.all.Go(l.accept)
	return l, nil
}

// Addr is where the link listens.
func (l *Link) Addr() net.Addr { return l.listen.Addr() }

// Up lets bytes through again.
func (l *Link) Up() { l.move(up) }

// Down breaks all connections, and every new one at once, as a daemon does that
// is being restarted.
func (l *Link) Down() { l.move(down) }

// Hang takes connections and lets nothing through, those that exist included.
func (l *Link) Hang() { l.move(hanging) }

// Close breaks everything and waits.
func (l *Link) Close() {
	l.move(closed)
	l.listen.Close()
	l.all.Wait()
}

func (l *Link) move(to linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == closed {
		return
	}
	l.state = to
	close(l.moved)
	l.moved = make(chan struct{})
	if to == down || to == closed {
		for conn := range l.conns {
			conn.Close()
		}
	}
}

func (l *Link) now() (linkState, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state, l.moved
}

func (l *Link) accept() {
	for {
		conn, err := l.listen.Accept()
		if err != nil {
			return
		}
		l.all.Go(func() { l.carry(conn) })
	}
}

// add notes a connection, so that it can be broken; false: it is to be broken
// now.
func (l *Link) add(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == down || l.state == closed {
		return false
	}
	l.conns[conn] = struct{}{}
	return true
}

func (l *Link) remove(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
	conn.Close()
}

func (l *Link) carry(near net.Conn) {
	defer near.Close()
	if !l.add(near) {
		return
	}
	defer l.remove(near)
	if !l.open() {
		return
	}
	far, err := (&net.Dialer{}).DialContext(context.Background(), l.network, l.target)
	if err != nil {
		return
	}
	defer far.Close()
	if !l.add(far) {
		return
	}
	defer l.remove(far)
	var back sync.WaitGroup
	defer back.Wait()
	back.Go(func() { l.copy(near, far) })
	l.copy(far, near)
}

// open waits while the link hangs, and reports whether it is up then.
func (l *Link) open() bool {
	for {
		state, moved := l.now()
		switch state {
		case up:
			return true
		case down, closed:
			return false
		}
		<-moved
	}
}

// copy carries bytes one way, until one side closes.
func (l *Link) copy(to, from net.Conn) {
	// The end of one direction is passed on alone: protocols that are upgraded
	// use the other for longer.
	defer func() {
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !l.open() {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			to.Close()
			return
		}
	}
}
