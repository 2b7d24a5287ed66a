package logstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longshore-run/longshore/internal/api"
)

// Resume is New for a job whose log another process began: it goes on with what
// that one left in Options.SpoolDir. What is damaged, and what was in memory when
// that process was killed, is a line in the log that says what is missing. No
// other process may use the directory.
//
// It needs a service that refuses a batch that is too far on with the number of
// the line it expects, and takes no line twice.
func Resume(o Options) (*Streams, error) {
	s := newStreams(o)
	s.lostWhy = "they were lost with the program that had them in memory"
	if err := s.load(); err != nil {
		s.cancel(errClosed)
		return nil, fmt.Errorf("resume the log in %s: %w", o.SpoolDir, err)
	}
	s.resumed = s.Left()
	s.start()
	return s, nil
}

// Resumed returns how many lines Resume found that were to be delivered.
func (s *Streams) Resumed() int64 { return s.resumed }

// load takes over the spool.
func (s *Streams) load() error {
	sp := &s.queue.spool
	entries, err := os.ReadDir(sp.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	known, err := readMarks(filepath.Join(sp.dir, marksName))
	if err != nil {
		return err
	}
	sp.marks.complete = len(known) > 0
	for step, m := range known {
		w := s.Step(step)
		w.shift, w.blind, w.shed, w.handed = m.shift, m.blind, m.shed, m.acked
		w.acknowledge(m.acked)
		w.next = m.acked
		sp.marks.complete = sp.marks.complete && m.complete
	}
	began := map[*Writer]bool{} // has a record
	for _, e := range entries { // by name, which is in order
		number, err := strconv.Atoi(strings.TrimSuffix(e.Name(), fileEnd))
		if err != nil || !IsSpoolFile(e.Name()) {
			continue
		}
		if err := s.loadFile(number, began); err != nil {
			return err
		}
	}
	sp.release()
	s.conclude(known)
	return nil
}

// loadFile takes over one file: all records that are good and were not
// delivered.
func (s *Streams) loadFile(number int, began map[*Writer]bool) error {
	sp := &s.queue.spool
	path := filepath.Join(sp.dir, fmt.Sprintf("%08d%s", number, fileEnd))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	content, err := io.ReadAll(io.LimitReader(f, MaxFileBytes))
	if err != nil {
		return errors.Join(err, f.Close())
	}
	file := &spoolFile{f: f, number: number, size: int64(len(content)), head: true}
	for at := 0; at < len(content); {
		r, step, ok := decodeRecord(content, at)
		if !ok {
			at = nextRecord(content, at)
			continue
		}
		r.w = s.Step(step)
		at += recordHeader + r.size
		if r.end <= r.w.next {
			continue // delivered, or there before
		}
		if w := r.w; !began[w] {
			began[w] = true
			// Whether the service has the lines between acked and these, only the
			// service knows.
			w.handed = max(w.acked, r.end-int64(r.lines))
		}
		r.w.next = r.end
		file.records = append(file.records, r)
		sp.count++
	}
	sp.bytes += file.size
	sp.files = append(sp.files, file)
	return nil
}

// conclude adds what must be said of the lines after the last ones found.
func (s *Streams) conclude(known map[int]mark) {
	last := -1
	for step, w := range s.steps {
		last = max(last, step)
		if m := known[step]; m.complete && m.next > w.next {
			s.queue.last = append(s.queue.last, &batch{w: w, end: m.next, lost: m.next - w.next, why: "their file in the spool is damaged"})
			w.next = m.next
		}
	}
	if last >= 0 && !s.queue.spool.marks.complete {
		w := s.steps[last]
		b := &batch{w: w, end: w.next + 1, sealed: time.Now()}
		b.enc.AppendString(b.sealed, tornText)
		w.next++
		s.queue.used += b.enc.Size()
		s.queue.last = append(s.queue.last, b)
	}
	s.queue.spool.marks.complete = true // from here on
}

// IsSpoolFile reports whether a file of that name may be part of a spool.
func IsSpoolFile(name string) bool {
	number, ok := strings.CutSuffix(name, fileEnd)
	if !ok {
		return name == marksName
	}
	_, err := strconv.ParseUint(number, 10, 32)
	return err == nil && len(number) == 8
}

const tornText = "[longshore: lines may be missing here: the program that kept this log was killed]\n"

// Left returns how many lines the service has not taken yet, those included
// that can only be accounted for as missing.
func (s *Streams) Left() (lines int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.steps {
		lines += max(w.next-w.acked, 0)
	}
	return lines
}

func readMarks(path string) (map[int]mark, error) {
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	known := map[int]mark{}
	for step := range min(len(content)/markBytes, maxSteps) {
		if m, ok := decodeMark(content[step*markBytes:], step); ok && m.sound() {
			known[step] = m
		}
	}
	return known, nil
}

// sound reports whether the numbers can be meant.
func (m mark) sound() bool {
	for _, n := range []int64{m.acked, m.next, m.shed} {
		if n < 0 || n > maxNumber {
			return false
		}
	}
	return m.shift >= -maxNumber && m.shift <= 2*maxNumber // Continue guesses one that high
}

// decodeRecord reads the record at a byte of a file, but for its step's Writer.
func decodeRecord(content []byte, at int) (r record, step int, ok bool) {
	h := content[at:]
	if len(h) < recordHeader || binary.LittleEndian.Uint32(h) != recordMark {
		return record{}, 0, false
	}
	size := binary.LittleEndian.Uint32(h[4:])
	if size > maxRecord || int(size) > len(h)-recordHeader {
		return record{}, 0, false
	}
	kept := h[recordHeader : recordHeader+int(size)]
	if sum := crc32.Checksum(h[12:recordHeader+int(size)], crcTable); sum != binary.LittleEndian.Uint32(h[8:]) {
		return record{}, 0, false
	}
	step = int(binary.LittleEndian.Uint32(h[12:]))
	r = record{
		at: int64(at), size: len(kept), lines: int(binary.LittleEndian.Uint32(h[16:])), text: int64(binary.LittleEndian.Uint32(h[20:])),
		end: int64(binary.LittleEndian.Uint64(h[24:])), //nolint:gosec // as it was written
	}
	return r, step, step < maxSteps && r.end < maxNumber && r.end >= int64(r.lines) && decodes(kept, r.lines)
}

// decodes reports whether kept is n lines. A checksum keeps no liar out: steps
// of a job may be able to write where its spool is.
func decodes(kept []byte, n int) bool {
	body := slices.Concat([]byte(`{"offset":0,"lines":`), kept, []byte(`]}`))
	b, err := api.DecodeLogBatch(body)
	return err == nil && n > 0 && len(b.Lines) == n
}

// What no spool of ours goes beyond.
const (
	maxSteps  = api.MaxSteps + 1
	maxNumber = 1 << 40 // of a line, and of bytes
	// MaxFileBytes is the largest file that is read of a spool.
	MaxFileBytes = 2 * maxRecord
)

// nextRecord returns where the next record may begin after a damaged one.
func nextRecord(content []byte, at int) int {
	i := bytes.Index(content[at+1:], binary.LittleEndian.AppendUint32(nil, recordMark))
	if i < 0 {
		return len(content)
	}
	return at + 1 + i
}
