// Package logchunk packs consecutive log lines into one compact block and
// unpacks it again. A block is what the store keeps of a log batch, so packing
// has to be cheap: times are differences, texts are one run of bytes, and what
// is worth it is compressed by zstd at its fastest level.
//
// The layout is a form byte (0 plain, 1 zstd) and a body of
//
//	uvarint  number of lines
//	varint   time of the first line, in unix nanoseconds; 0 for the zero time
//	varint   for each further line, its time less that of the line before
//	uvarint  for each line, its length in bytes
//	bytes    the texts, one after the other
package logchunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/longshore-run/longshore/internal/api"
)

// Forms of a block.
const (
	formPlain = 0
	formZstd  = 1
)

// smallest is the size in bytes from which compressing is worth its cost.
const smallest = 256

// MaxBytes is the largest body that is unpacked. It leaves room for a request
// of the largest size, so only damage can exceed it.
const MaxBytes = 64 << 20

// ErrDamaged means that a block is not what Encode made.
var ErrDamaged = errors.New("log chunk is damaged")

// Codec packs and unpacks. It may be used concurrently. Make one with New.
type Codec struct {
	enc     *zstd.Encoder
	dec     *zstd.Decoder
	buffers sync.Pool // of *[]byte, for bodies
}

// New returns a Codec.
func New() *Codec {
	enc, encErr := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(true))
	dec, decErr := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(MaxBytes))
	if err := errors.Join(encErr, decErr); err != nil {
		panic(fmt.Sprintf("logchunk: constant options are refused: %v", err))
	}
	return &Codec{enc: enc, dec: dec}
}

// Close frees what the Codec holds. It must not be used afterwards.
func (c *Codec) Close() { c.dec.Close() }

// Encode packs lines into a new block.
func (c *Codec) Encode(lines []api.LogLine) []byte {
	buffer, ok := c.buffers.Get().(*[]byte)
	if !ok {
		buffer = new([]byte)
	}
	body := appendBody((*buffer)[:0], lines)
	var out []byte
	if len(body) < smallest {
		out = append(append(make([]byte, 0, 1+len(body)), formPlain), body...)
	} else {
		out = c.enc.EncodeAll(body, append(make([]byte, 0, len(body)/4), formZstd))
	}
	*buffer = body
	c.buffers.Put(buffer)
	return out
}

func appendBody(b []byte, lines []api.LogLine) []byte {
	b = binary.AppendUvarint(b, uint64(len(lines)))
	var last int64
	for _, l := range lines {
		var now int64
		if !l.Time.IsZero() {
			now = l.Time.UnixNano()
		}
		b = binary.AppendVarint(b, now-last)
		last = now
	}
	for _, l := range lines {
		b = binary.AppendUvarint(b, uint64(len(l.Text)))
	}
	for _, l := range lines {
		b = append(b, l.Text...)
	}
	return b
}

// Decode unpacks a block, without its first skip lines and to at most limit of
// those that follow.
func (c *Codec) Decode(block []byte, skip, limit int) ([]api.LogLine, error) {
	if len(block) == 0 {
		return nil, ErrDamaged
	}
	body := block[1:]
	switch block[0] {
	case formPlain:
	case formZstd:
		buffer, ok := c.buffers.Get().(*[]byte)
		if !ok {
			buffer = new([]byte)
		}
		unpacked, err := c.dec.DecodeAll(body, (*buffer)[:0])
		defer func() {
			*buffer = unpacked
			c.buffers.Put(buffer)
		}()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		body = unpacked
	default:
		return nil, ErrDamaged
	}
	return readBody(body, skip, limit)
}

func readBody(b []byte, skip, limit int) ([]api.LogLine, error) {
	r := reader{b: b}
	count := r.uvarint()
	// Two bytes a line is the least there can be, which bounds what damage can
	// make us allocate.
	if r.bad || count > uint64(len(b))/2 {
		return nil, ErrDamaged
	}
	n := int(count) // #nosec G115 -- bounded by the length of b
	from := min(max(skip, 0), n)
	to := min(from+max(limit, 0), n)
	lines := make([]api.LogLine, 0, to-from)
	var now int64
	for i := range n {
		now += r.varint()
		if i >= from && i < to {
			var at time.Time
			if now != 0 {
				at = time.Unix(0, now).UTC()
			}
			lines = append(lines, api.LogLine{Time: at})
		}
	}
	lengths := reader{b: r.b}
	for range n {
		r.uvarint()
	}
	for i := range n {
		text := r.bytes(lengths.uvarint())
		if i >= from && i < to {
			lines[i-from].Text = string(text)
		}
	}
	if r.bad || lengths.bad || len(r.b) != 0 {
		return nil, ErrDamaged
	}
	return lines, nil
}

// reader reads from the front of b; bad is set at the first thing that is not
// there.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.skip(n)
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	r.skip(n)
	return v
}

func (r *reader) skip(n int) {
	if n <= 0 {
		r.bad, r.b = true, nil
		return
	}
	r.b = r.b[n:]
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	text := r.b[:n]
	r.b = r.b[n:]
	return text
}
