package gitsrc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
)

// session is one conversation with the git process on the other side: first
// the refs it has, then, once, a pack.
type session interface {
	refs(ctx context.Context) (*packp.AdvRefs, error)
	pack(ctx context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error)
	Close() error
}

func (c *checkout) open(ctx context.Context, touch func()) (session, error) {
	switch {
	case c.at.web():
		return c.openHTTP(touch), nil
	case c.at.scheme == "git":
		return c.openGit(ctx, touch)
	default:
		return c.openSSH(ctx, touch)
	}
}

// decodeRefs reads the list of refs.
func decodeRefs(r io.Reader) (*packp.AdvRefs, error) {
	refs := packp.NewAdvRefs()
	err := refs.Decode(r)
	var (
		line       *pktline.ErrorLine
		unexpected *packp.ErrUnexpectedData
	)
	switch {
	case err == nil && refs.IsEmpty(), errors.Is(err, packp.ErrEmptyAdvRefs):
		return nil, errEmpty
	case errors.As(err, &line):
		return nil, &remoteError{said: line.Text}
	case errors.As(err, &unexpected), errors.Is(err, pktline.ErrInvalidPktLen):
		return nil, fmt.Errorf("%w: %w", errNotGit, err)
	}
	return refs, err
}

// encodePack writes the request for a pack.
func encodePack(w io.Writer, req *packp.UploadPackRequest) error {
	if err := req.Validate(); err != nil {
		return err
	}
	if err := req.UploadRequest.Encode(w); err != nil {
		return err
	}
	return pktline.NewEncoder(w).EncodeString("done\n")
}

// decodePack reads the answer up to where the pack begins. It closes r when it
// fails.
func decodePack(r io.ReadCloser, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	if said, ok := peekError(b); ok {
		return nil, errors.Join(&remoteError{said: said}, r.Close())
	}
	response := packp.NewUploadPackResponse(req)
	if err := response.Decode(readCloser{b, r}); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return response, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// peekError looks whether the next packet is an error line, and reads it if so.
func peekError(b *bufio.Reader) (said string, ok bool) {
	head, err := b.Peek(8)
	if err != nil || string(head[4:]) != "ERR " {
		return "", false
	}
	n, err := strconv.ParseUint(string(head[:4]), 16, 16)
	if err != nil || n < 8 {
		return "", false
	}
	line := make([]byte, n)
	got, _ := io.ReadFull(b, line)
	return string(bytes.TrimSpace(line[8:max(got, 8)])), true
}

// sideband takes the pack out of the three bands in which it comes: the data,
// the server's progress messages, and its last words.
type sideband struct {
	packets  *pktline.Scanner
	progress io.Writer
	rest     []byte
}

func (s *sideband) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if !s.packets.Scan() {
			if err := s.packets.Err(); err != nil {
				return 0, err
			}
			return 0, io.ErrUnexpectedEOF // a pack ends with a flush, not with silence
		}
		packet := s.packets.Bytes()
		if len(packet) == 0 {
			return 0, io.EOF
		}
		switch band, data := packet[0], packet[1:]; band {
		case 1:
			s.rest = data
		case 2:
			if _, err := s.progress.Write(data); err != nil {
				return 0, err
			}
		case 3:
			return 0, &remoteError{said: string(data)}
		default:
			return 0, errNotGit
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// watchdog ends its context with errStalled when nothing has touched it for a
// while.
type watchdog struct {
	timer  *time.Timer
	after  time.Duration
	cancel context.CancelCauseFunc
}

func watch(ctx context.Context, after time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watchdog{time.AfterFunc(after, func() { cancel(errStalled) }), after, cancel}
}

func (w *watchdog) touch() { w.timer.Reset(w.after) }

// rest stops the clock: from here on no byte is waited for.
func (w *watchdog) rest() { w.timer.Stop() }

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// counted calls touch for everything that r delivers.
type counted struct {
	io.ReadCloser
	touch func()
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n > 0 {
		c.touch()
	}
	return n, err
}
