package gitsrc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Packets are how git's protocol frames what it sends: four hexadecimal digits
// that say the length, themselves included, and then the data. Lengths below
// four are marks.
type packetKind int

const (
	packetData packetKind = iota
	packetFlush
	packetDelimiter
)

// readPacket reads one packet. An error that the other side reports in a packet
// comes as a *remoteError.
func readPacket(r *bufio.Reader) ([]byte, packetKind, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, err
	}
	n, err := strconv.ParseUint(string(head[:]), 16, 16)
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("%w: a packet has the length %q", errNotGit, head)
	case n == 0 || n == 2:
		return nil, packetFlush, nil
	case n == 1:
		return nil, packetDelimiter, nil
	case n < 4:
		return nil, 0, errNotGit
	}
	data := make([]byte, n-4)
	if _, err := io.ReadFull(r, data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, 0, err
	}
	if said, ok := bytes.CutPrefix(data, []byte("ERR ")); ok {
		return nil, 0, &remoteError{said: strings.TrimSpace(string(said))}
	}
	return data, packetData, nil
}

// readLines reads packets of one line each, up to a mark.
func readLines(r *bufio.Reader, line func(string) error) (packetKind, error) {
	for {
		data, kind, err := readPacket(r)
		if err != nil || kind != packetData {
			return kind, err
		}
		if err := line(strings.TrimSuffix(string(data), "\n")); err != nil {
			return 0, err
		}
	}
}

func writeLine(b *bytes.Buffer, words ...string) {
	line := strings.Join(words, " ") + "\n"
	fmt.Fprintf(b, "%04x%s", len(line)+4, line)
}

const (
	flushMark     = "0000"
	delimiterMark = "0001"
)

// sideband takes the pack out of the three bands in which it comes: the data,
// the server's progress messages, and its last words.
type sideband struct {
	packets  *bufio.Reader
	progress io.Writer
	rest     []byte
}

func (s *sideband) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		packet, kind, err := readPacket(s.packets)
		switch {
		case errors.Is(err, io.EOF):
			return 0, io.ErrUnexpectedEOF // a pack ends with a flush, not with silence
		case err != nil:
			return 0, err
		case kind == packetFlush:
			return 0, io.EOF
		case kind != packetData, len(packet) == 0:
			return 0, errNotGit
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
