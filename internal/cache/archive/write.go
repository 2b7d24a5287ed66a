package archive

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Write writes an archive of folders to w. Folders that are missing are left out,
// and so are sockets, pipes and devices. Nothing may change in the folders
// meanwhile. When more than limit bytes would be written, the error is
// ErrTooLarge.
func Write(ctx context.Context, w io.Writer, key string, folders []Folder, limit int64) (Manifest, error) {
	workers := concurrency()
	packer, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(workers),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(true))
	if err != nil {
		return Manifest{}, fmt.Errorf("start compressing: %w", err)
	}
	defer packer.Close()
	ctx, stop := context.WithCancelCause(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer stop(nil)

	todo, ordered := make(chan *batch), make(chan *batch, 2*workers)
	spare := make(chan []byte, 3*workers+2) // memory of chunks that were written
	walk := &walk{ctx: ctx, todo: todo, ordered: ordered}
	work.Go(func() {
		defer close(ordered)
		defer close(todo)
		if err := walk.all(folders); err != nil {
			stop(err)
		}
	})
	for range workers {
		work.Go(func() {
			var raw []byte
			for b := range todo {
				var err error
				select {
				case b.packed = <-spare:
				default:
				}
				if raw, err = b.pack(ctx, packer, raw[:0]); err != nil {
					stop(err)
				}
				close(b.done)
			}
		})
	}
	out := &output{w: w, limit: limit, spare: spare}
	if err := out.chunks(ctx, ordered); err != nil {
		return Manifest{}, err
	}
	m := Manifest{Format: format, Key: key, Folders: walk.folders, Entries: walk.entries, Bytes: walk.bytes}
	return m, out.finish(&m)
}

// concurrency is how many chunks are worked on at a time.
func concurrency() int { return min(max(runtime.GOMAXPROCS(0), 2), 8) }

// output is the archive as it is written, chunk by chunk.
type output struct {
	w     io.Writer
	limit int64
	spare chan<- []byte
	size  int64
	sum   sumWriter
}

// chunks writes what the batches became, in their order.
func (o *output) chunks(ctx context.Context, ordered <-chan *batch) error {
	o.sum = sumWriter{sha256.New()}
	for b := range ordered {
		select {
		case <-b.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := o.write(b.packed); err != nil {
			return err
		}
		select {
		case o.spare <- b.packed:
		default:
		}
		b.packed = nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (o *output) write(p []byte) error {
	if o.size+int64(len(p))+mostManifest > o.limit {
		return ErrTooLarge
	}
	o.sum.Write(p)
	n, err := o.w.Write(p)
	o.size += int64(n)
	return err
}

func (o *output) finish(m *Manifest) error {
	m.Size, m.SHA256 = o.size, hex.EncodeToString(o.sum.Sum(nil))
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	frame := binary.LittleEndian.AppendUint32(nil, magicManifest)
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(text))) //nolint:gosec // a few names and numbers
	_, err = o.w.Write(append(frame, text...))
	return err
}

// batch is what becomes one chunk.
type batch struct {
	entries []entry
	part    uint32 // of the only entry
	size    int64  // of the files in it
	last    bool   // of the archive: the end of tar comes after it

	packed []byte // memory for the chunk with its index, and both once done is closed
	done   chan struct{}
}

// entry is one file, folder or link.
type entry struct {
	header header
	path   string // of a file's content
}

// pack reads the files of a batch and compresses them. It returns the memory
// that it worked in, for the next batch.
func (b *batch) pack(ctx context.Context, packer *zstd.Encoder, raw []byte) ([]byte, error) {
	buffer := sink{raw}
	for i := range b.entries {
		if ctx.Err() != nil {
			return buffer.b, context.Cause(ctx)
		}
		if err := b.entries[i].append(&buffer, int64(b.part)); err != nil {
			return buffer.b, err
		}
	}
	if b.last {
		buffer.b = append(buffer.b, make([]byte, 2*block)...)
	}
	packed := append(b.packed[:0], make([]byte, indexSize)...) // which is known afterwards
	if most := indexSize + packer.MaxEncodedSize(len(buffer.b)); cap(packed) < most && cap(packed) > partSize/4 {
		packed = make([]byte, indexSize, most) // grown before, and it would grow again
	}
	packed = packer.EncodeAll(buffer.b, packed)
	index{packed: uint32(len(packed) - indexSize), raw: uint32(len(buffer.b)), part: b.part}.append(packed[:0]) //nolint:gosec // a few MiB
	b.packed = packed
	return buffer.b, nil
}

// append writes an entry, or one part of a large file, to the end of a chunk.
func (e *entry) append(to *sink, part int64) error {
	if part == 0 {
		var err error
		if to.b, err = e.header.append(to.b); err != nil {
			return fmt.Errorf("%s: %w", e.header.name, err)
		}
	}
	if e.path == "" {
		return nil
	}
	offset := part * partSize
	n := min(e.header.size-offset, partSize)
	if err := readInto(to.grow(int(n)), e.path, offset); err != nil {
		return err
	}
	if offset+n == e.header.size {
		clear(to.grow(int(padding(e.header.size))))
	}
	return nil
}

// sink is a buffer that can be read into.
type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// grow makes the buffer longer by n bytes and returns those.
func (s *sink) grow(n int) []byte {
	at := len(s.b)
	if at+n > cap(s.b) {
		b := make([]byte, at, max(at+n, partSize+partSize/8))
		copy(b, s.b)
		s.b = b
	}
	s.b = s.b[:at+n]
	return s.b[at:]
}

// missing reports whether a folder is not there, or nothing is in it.
func missing(path string) (bool, error) {
	dir, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	_, err = dir.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}
