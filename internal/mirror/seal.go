package mirror

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
)

// A sealed entry is
//
//	magic | salt | chunks | SHA-256 of all before it
//
// and a chunk is its length, the highest bit of which marks the last one, and as
// many bytes of AES-256-GCM. Their nonces count, and tell the last chunk from the
// others, so that nothing can be cut off, added or moved. The salt makes the key
// one of this file alone. The clear text is the length of the header, the header
// as JSON, and the pack. The checksum is for those who have no key.
const (
	magic     = "longshore-mirror-1\n"
	saltSize  = 32
	chunkSize = 64 << 10
	lastChunk = 1 << 31
	maxHeader = 64 << 10
)

// sealer numbers the chunks of one file.
type sealer struct {
	aead cipher.AEAD
	n    uint64
}

func newSealer(key Key, salt []byte) (*sealer, error) {
	block, err := aes.NewCipher(derive(append(bytes.Clone(key), salt...), "longshore mirror file 1"))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &sealer{aead: aead}, nil
}

func (s *sealer) nonce(last bool) []byte {
	nonce := make([]byte, s.aead.NonceSize())
	binary.BigEndian.PutUint64(nonce, s.n)
	s.n++
	if last {
		nonce[len(nonce)-1] = 1
	}
	return nonce
}

// Writer seals a pack. It must be closed to be of use to anybody.
type Writer struct {
	to   io.Writer
	sum  hash.Hash
	seal *sealer
	part []byte
	err  error
}

// NewWriter begins an entry.
func NewWriter(to io.Writer, key Key, h Header) (*Writer, error) {
	w := &Writer{to: to, sum: sha256.New(), part: make([]byte, 0, chunkSize)}
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	var err error
	if w.seal, err = newSealer(key, salt); err != nil {
		return nil, err
	}
	w.put([]byte(magic))
	w.put(salt)
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(text)))); err != nil { // #nosec G115 -- a header is short
		return nil, err
	}
	_, err = w.Write(text)
	return w, err
}

// Write seals a part of the pack.
func (w *Writer) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 && w.err == nil {
		if len(w.part) == chunkSize { // there is more, so it is not the last
			w.chunk(0)
		}
		room := min(chunkSize-len(w.part), len(b))
		w.part, b = append(w.part, b[:room]...), b[room:]
	}
	return n, w.err
}

// Close ends the entry.
func (w *Writer) Close() error {
	w.chunk(lastChunk)
	w.put(w.sum.Sum(nil))
	return w.err
}

func (w *Writer) chunk(mark uint32) {
	sealed := w.seal.aead.Seal(nil, w.seal.nonce(mark != 0), w.part, nil) // #nosec G407 -- it counts, under a key that is this file's alone
	w.part = w.part[:0]
	w.put(binary.BigEndian.AppendUint32(nil, uint32(len(sealed))|mark)) // #nosec G115 -- of a chunk
	w.put(sealed)
}

func (w *Writer) put(b []byte) {
	if w.err != nil {
		return
	}
	w.sum.Write(b)
	_, w.err = w.to.Write(b)
}

// Reader opens an entry and reads its pack. What it returned is what was sealed,
// as far as it came; that it was all of it is only sure at the end.
type Reader struct {
	from io.Reader
	seal *sealer
	part []byte
	last bool
}

// NewReader begins to read an entry. The error is ErrBroken for what is damaged,
// and for another key than that of the entry.
func NewReader(from io.Reader, key Key) (*Reader, Header, error) {
	var h Header
	begin := make([]byte, len(magic)+saltSize)
	if _, err := io.ReadFull(from, begin); err != nil || string(begin[:len(magic)]) != magic {
		return nil, h, ErrBroken
	}
	seal, err := newSealer(key, begin[len(magic):])
	if err != nil {
		return nil, h, err
	}
	r := &Reader{from: from, seal: seal}
	length := make([]byte, 4)
	if _, err := io.ReadFull(r, length); err != nil {
		return nil, h, broken(err)
	}
	n := binary.BigEndian.Uint32(length)
	if n > maxHeader {
		return nil, h, ErrBroken
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, h, broken(err)
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return nil, h, ErrBroken
	}
	return r, h, nil
}

// Read reads the pack.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.part) == 0 {
		if r.last {
			return 0, io.EOF
		}
		if err := r.chunk(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.part)
	r.part = r.part[n:]
	return n, nil
}

func (r *Reader) chunk() error {
	length := make([]byte, 4)
	if _, err := io.ReadFull(r.from, length); err != nil {
		return broken(err)
	}
	n := binary.BigEndian.Uint32(length)
	r.last, n = n&lastChunk != 0, n&^lastChunk
	if n > chunkSize+uint32(r.seal.aead.Overhead()) { // #nosec G115 -- 16
		return ErrBroken
	}
	sealed := make([]byte, n)
	if _, err := io.ReadFull(r.from, sealed); err != nil {
		return broken(err)
	}
	var err error
	if r.part, err = r.seal.aead.Open(sealed[:0], r.seal.nonce(r.last), sealed, nil); err != nil {
		return ErrBroken
	}
	return nil
}

func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrBroken
	}
	return err
}

// check reads a whole entry and compares it with its checksum, for which no key
// is needed.
func check(from io.Reader) error {
	begin := make([]byte, len(magic)+saltSize)
	if _, err := io.ReadFull(from, begin); err != nil || string(begin[:len(magic)]) != magic {
		return ErrBroken
	}
	sum := sha256.New()
	sum.Write(begin)
	tail := make([]byte, 0, sha256.Size+chunkSize)
	block := make([]byte, chunkSize)
	for {
		n, err := from.Read(block)
		tail = append(tail, block[:n]...)
		if over := len(tail) - sha256.Size; over > 0 {
			sum.Write(tail[:over])
			tail = append(tail[:0], tail[over:]...)
		}
		switch {
		case errors.Is(err, io.EOF):
			if !bytes.Equal(tail, sum.Sum(nil)) {
				return ErrBroken
			}
			return nil
		case err != nil:
			return fmt.Errorf("read an entry of the mirror: %w", err)
		}
	}
}
