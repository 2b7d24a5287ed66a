package archive

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"github.com/longshore-run/longshore/internal/unpack"
)

// Read reads an archive that was stored by a key and puts its folders where
// folders says: each Path is an empty directory that nobody else uses. When the
// archive is damaged, foreign or beyond the limits, the error is an
// *unpack.Error, and what the directories hold is worth nothing. Errors of r are
// returned as they are.
func Read(ctx context.Context, r io.Reader, key string, folders []Folder, limits unpack.Limits) (m Manifest, err error) {
	workers := concurrency()
	unpacker, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(workers), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(mostRaw))
	if err != nil {
		return Manifest{}, fmt.Errorf("start decompressing: %w", err)
	}
	defer unpacker.Close()
	trees, err := plant(folders)
	if err != nil {
		return Manifest{}, err
	}
	defer trees.close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	u := &unpacking{ctx: ctx, stop: stop, unpacker: unpacker, trees: trees, limits: limits}
	chunks, spare := make(chan chunk), make(chan []byte, workers+1)
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			var raw []byte
			for c := range chunks {
				raw = u.chunk(c, raw[:0])
				spare <- c.packed
			}
		})
	}
	for range workers + 1 {
		spare <- nil
	}
	in := &input{ctx: ctx, r: r, chunks: chunks, spare: spare}
	m, err = in.all()
	close(chunks)
	if err != nil {
		stop(err)
	}
	work.Wait()
	if ctx.Err() != nil {
		return Manifest{}, context.Cause(ctx)
	}
	if err := u.check(m, key); err != nil {
		return Manifest{}, err
	}
	return m, trees.finish()
}

// chunk is one chunk on its way to be unpacked.
type chunk struct {
	index
	packed []byte
	file   *large // that the chunk goes on with, or that may begin in it
}

// input is the archive as it is read, frame by frame.
type input struct {
	ctx    context.Context
	r      io.Reader
	chunks chan<- chunk
	spare  <-chan []byte
	size   int64
	sum    sumWriter
	file   *large
	part   uint32
}

func (in *input) all() (Manifest, error) {
	in.sum = sumWriter{sha256.New()}
	var head [indexSize]byte
	for first := true; ; first = false {
		if err := in.read(head[:8]); err != nil {
			return Manifest{}, err
		}
		magic, size := binary.LittleEndian.Uint32(head[:]), binary.LittleEndian.Uint32(head[4:])
		switch {
		case magic == magicManifest && size <= mostManifest:
			return in.manifest(size)
		case magic == magicChunk && size == indexSize-8:
		case first:
			return Manifest{}, wrong("it is something else than an archive of the cache")
		default:
			return Manifest{}, wrong("it is damaged: byte %d is not the beginning of a chunk", in.size)
		}
		if err := in.read(head[8:]); err != nil {
			return Manifest{}, err
		}
		in.sum.Write(head[:])
		in.size += indexSize
		if err := in.chunk(parseIndex(head[8:])); err != nil {
			return Manifest{}, err
		}
	}
}

// chunk reads a chunk and hands it to a worker.
func (in *input) chunk(i index) error {
	if i.raw > mostRaw || i.packed > mostRaw+mostRaw/8 {
		return wrong("it is damaged: a chunk of %d bytes", i.raw)
	}
	switch {
	case i.part == 0:
		in.file = &large{known: make(chan struct{})}
	case in.file == nil || i.part != in.part+1:
		return wrong("it is damaged: the %d-th part of a file comes after the %d-th", i.part, in.part)
	}
	in.part = i.part
	c := chunk{index: i, file: in.file}
	select {
	case c.packed = <-in.spare:
	case <-in.ctx.Done():
		return context.Cause(in.ctx)
	}
	if cap(c.packed) < int(i.packed) {
		c.packed = make([]byte, max(int(i.packed), partSize/2))
	}
	c.packed = c.packed[:i.packed]
	if err := in.read(c.packed); err != nil {
		return err
	}
	in.sum.Write(c.packed)
	in.size += int64(i.packed)
	select {
	case in.chunks <- c:
		return nil
	case <-in.ctx.Done():
		return context.Cause(in.ctx)
	}
}

// manifest reads the last frame and compares it with what came before.
func (in *input) manifest(size uint32) (m Manifest, err error) {
	text := make([]byte, size)
	if err := in.read(text); err != nil {
		return m, err
	}
	var more [1]byte
	if _, err := io.ReadFull(in.r, more[:]); err == nil {
		return m, wrong("it is damaged: something follows its manifest")
	} else if err != io.EOF { //nolint:errorlint // as in read
		return m, err
	}
	switch err := json.Unmarshal(text, &m); {
	case err != nil:
		return m, wrong("its manifest is damaged: %v", err)
	case m.Format != format:
		return m, wrong("it has the form %d, and this program knows %d", m.Format, format)
	case m.Size != in.size || m.SHA256 != hex.EncodeToString(in.sum.Sum(nil)):
		return m, wrong("it is damaged: its sum is not that of its manifest")
	}
	return m, nil
}

// read fills p.
func (in *input) read(p []byte) error {
	_, err := io.ReadFull(in.r, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // the reader's own end, not what is within its errors
		return wrong("it ends too early")
	}
	return err
}

// large is a file of which every part has a chunk of its own.
type large struct {
	known chan struct{} // closed when the chunk in which the file may begin was unpacked
	file  *file         // nil when none begins there
	size  int64
	left  atomic.Int64
}

// unpacking is what the workers of one Read share.
type unpacking struct {
	ctx      context.Context
	stop     context.CancelCauseFunc
	unpacker *zstd.Decoder
	trees    trees
	limits   unpack.Limits

	entries, bytes atomic.Int64
	unfinished     atomic.Int64 // large files of which parts are missing
}

// chunk unpacks a chunk. It returns the memory that it worked in.
func (u *unpacking) chunk(c chunk, raw []byte) []byte {
	if c.part == 0 {
		defer close(c.file.known) // after stop, which says why there may be no file
	}
	if u.ctx.Err() != nil {
		return raw
	}
	raw, err := u.unpack(c, raw)
	if err != nil {
		u.stop(err)
	}
	return raw
}

func (u *unpacking) unpack(c chunk, raw []byte) ([]byte, error) {
	if cap(raw) < int(c.raw) {
		raw = make([]byte, 0, max(int(c.raw), partSize+partSize/8))
	}
	raw, err := u.unpacker.DecodeAll(c.packed, raw)
	switch {
	case err != nil:
		return raw, wrong("it is damaged: %v", err)
	case len(raw) != int(c.raw):
		return raw, wrong("it is damaged: a chunk of %d bytes has %d", c.raw, len(raw))
	case c.part > 0:
		return raw, u.part(c, raw)
	}
	return raw, u.whole(c.file, raw)
}

// part writes one part of a large file.
func (u *unpacking) part(c chunk, raw []byte) error {
	select {
	case <-c.file.known:
	case <-u.ctx.Done():
		return nil
	}
	f, offset := c.file, int64(c.part)*partSize
	n := min(f.size-offset, partSize)
	if f.file == nil || n <= 0 || int64(len(raw)) < n {
		return wrong("it is damaged: a part of a file too many")
	}
	return u.wrote(f, raw[:n], offset)
}

// wrote writes content of a large file and, when that was all, finishes it.
func (u *unpacking) wrote(f *large, content []byte, offset int64) error {
	if err := f.file.write(content, offset); err != nil {
		return err
	}
	if f.left.Add(-int64(len(content))) == 0 {
		u.unfinished.Add(-1)
		return f.file.finish()
	}
	return nil
}

// whole unpacks a chunk of whole entries, of which the last may be the beginning
// of a large file.
func (u *unpacking) whole(begins *large, raw []byte) error {
	for u.ctx.Err() == nil {
		h, rest, err := parseHeader(raw)
		if err != nil || h.kind == 0 {
			return err
		}
		if err := u.entry(&h, rest, begins); err != nil || begins.file != nil {
			return err
		}
		if h.kind != tar.TypeReg {
			h.size = 0
		}
		raw = rest[min(int64(len(rest)), h.size+padding(h.size)):]
	}
	return nil
}

// entry makes one entry. Rest is what follows its header.
func (u *unpacking) entry(h *header, rest []byte, begins *large) error {
	if n := u.entries.Add(1); u.limits.Files > 0 && n > int64(u.limits.Files) {
		return wrong("it holds more than %d files", u.limits.Files)
	}
	name, err := unpack.Name(h.name)
	if err != nil {
		return err
	}
	first, below, _ := strings.Cut(name, "/")
	t, ok := u.trees[first]
	switch {
	case !ok:
		return wrong("it holds %q, which belongs to none of the folders", h.name)
	case h.kind == tar.TypeDir:
		return t.folder(below, h)
	case below == "":
		return wrong("%q is no folder", h.name)
	}
	switch h.kind {
	case tar.TypeReg:
		return u.file(t, below, h, rest, begins)
	case tar.TypeSymlink:
		return t.link(below, h.link, h)
	case tar.TypeLink:
		to, err := unpack.Name(h.link)
		if err != nil {
			return err
		}
		in, to, _ := strings.Cut(to, "/")
		if in != first || to == "" {
			return wrong("the link %q leads out of its folder", h.name)
		}
		return t.hardLink(below, to)
	}
	return wrong("%q is neither a file, a folder nor a link", h.name)
}

func (u *unpacking) file(t *tree, name string, h *header, rest []byte, begins *large) error {
	// Each is at most what is allowed before it is added: the sum cannot overflow.
	if most := cmp.Or(u.limits.Bytes, math.MaxInt64>>20); h.size > most || u.bytes.Add(h.size) > most {
		return wrong("unpacked it is larger than %d MiB", u.limits.Bytes>>20)
	}
	if h.size > int64(len(rest)) && len(rest) != partSize {
		return wrong("it is damaged: the content of %q is not where it should be", h.name)
	}
	f, err := t.create(name, h)
	if err != nil {
		return err
	}
	if h.size <= int64(len(rest)) {
		if err := f.write(rest[:h.size], 0); err != nil {
			return err
		}
		return f.finish()
	}
	f.keep()
	begins.file, begins.size = f, h.size
	begins.left.Store(h.size)
	u.unfinished.Add(1)
	return u.wrote(begins, rest, 0)
}

// check compares what was unpacked with the manifest.
func (u *unpacking) check(m Manifest, key string) error {
	switch {
	case m.Key != key:
		return wrong("it belongs to the key %q", m.Key)
	case u.unfinished.Load() != 0:
		return wrong("it is damaged: parts of a file are missing")
	case m.Entries != u.entries.Load() || m.Bytes != u.bytes.Load():
		return wrong("it holds %d entries of %d bytes, and its manifest says %d of %d", u.entries.Load(), u.bytes.Load(), m.Entries, m.Bytes)
	}
	for name, t := range u.trees {
		if t.used() != slices.Contains(m.Folders, name) {
			return wrong("its manifest does not name its folders")
		}
	}
	return nil
}
