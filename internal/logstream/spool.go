package logstream

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// spool keeps batches in files, oldest first; doc.go describes them. The files
// are of mode 0600. A file goes when everything in it was delivered, all go with
// the last.
type spool struct {
	dir   string
	limit int64
	bytes int64 // in all files
	files []*spoolFile
	count int // records not taken yet
	marks marks
}

type spoolFile struct {
	f       *os.File
	number  int
	size    int64
	head    bool     // kept when the spool is full
	records []record // not taken yet
}

// record is what the program itself remembers of a record, so that a damaged one
// does not hide those behind it.
type record struct {
	w     *Writer
	at    int64
	size  int   // of the lines as they are kept
	text  int64 // bytes of their text
	lines int
	end   int64
}

const (
	recordMark   = 0x324C534C // "LSL2"
	recordHeader = 4 + 4 + 4 + 4 + 4 + 4 + 8
	maxRecord    = 32 << 20 // more than any batch has

	// Files are numbered upwards from the first. What must come before them gets
	// a lower number.
	firstFile = 50_000_000
	fileEnd   = ".spool"
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

func (r record) header(lines []byte) []byte {
	h := make([]byte, 12, recordHeader)
	binary.LittleEndian.PutUint32(h, recordMark)
	binary.LittleEndian.PutUint32(h[4:], uint32(r.size))       //nolint:gosec // a few MiB
	h = binary.LittleEndian.AppendUint32(h, uint32(r.w.index)) //nolint:gosec // at most api.MaxSteps
	h = binary.LittleEndian.AppendUint32(h, uint32(r.lines))   //nolint:gosec // at most the size
	h = binary.LittleEndian.AppendUint32(h, uint32(r.text))    //nolint:gosec // less than the size
	h = binary.LittleEndian.AppendUint64(h, uint64(r.end))     //nolint:gosec // never negative
	sum := crc32.Update(crc32.Checksum(h[12:], crcTable), crcTable, lines)
	binary.LittleEndian.PutUint32(h[8:], sum)
	return h
}

func (s *spool) len() int { return s.count }

// room reports whether another batch may be put without one being shed.
func (s *spool) room() bool { return s.bytes < s.limit }

// fileBytes is how large a file may become before it gets no more: it is the
// least that can be shed.
func (s *spool) fileBytes() int64 { return max(4<<10, min(16<<20, s.limit/16)) }

// put adds a batch at the end. When it fails, nothing was added.
func (s *spool) put(b *batch) error {
	if n := len(s.files); n == 0 || s.full(s.files[n-1]) {
		number, head := firstFile, true
		if n > 0 {
			number, head = s.files[n-1].number+1, s.files[n-1].head && s.bytes < s.limit/2
		}
		file, err := s.create(number)
		if err != nil {
			return err
		}
		file.head = head
		s.files = append(s.files, file)
	}
	return s.add(s.files[len(s.files)-1], b)
}

func (s *spool) full(f *spoolFile) bool {
	return f.size >= s.fileBytes() || f.head && s.bytes >= s.limit/2
}

// putFront adds batches before all that are there.
func (s *spool) putFront(batches []*batch) error {
	if len(batches) == 0 {
		return nil
	}
	number := firstFile
	if len(s.files) > 0 {
		number = s.files[0].number - 1
	}
	file, err := s.create(number)
	if err != nil {
		return err
	}
	file.head = true
	s.files = append([]*spoolFile{file}, s.files...)
	for _, b := range batches {
		if err := s.add(file, b); err != nil {
			return err
		}
	}
	return nil
}

func (s *spool) create(number int) (*spoolFile, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, fmt.Sprintf("%08d%s", number, fileEnd))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &spoolFile{f: f, number: number}, nil
}

func (s *spool) add(file *spoolFile, b *batch) error {
	lines := b.enc.Raw()
	r := record{w: b.w, at: file.size, size: len(lines), text: b.text, lines: b.enc.Lines(), end: b.end}
	_, err := file.f.WriteAt(r.header(lines), r.at)
	if err == nil {
		_, err = file.f.WriteAt(lines, r.at+recordHeader)
	}
	if err == nil && !s.marks.has(b.w) {
		err = s.marks.write(s.dir, b.w)
	}
	if err != nil {
		return errors.Join(err, file.f.Truncate(file.size))
	}
	file.size += recordHeader + int64(r.size)
	s.bytes += recordHeader + int64(r.size)
	file.records = append(file.records, r)
	s.count++
	return nil
}

// shed drops what is oldest of all but the head and what is being written. It
// reports whether there was anything.
func (s *spool) shed() bool {
	for i, file := range s.files {
		if file.head || i == len(s.files)-1 {
			continue
		}
		for _, r := range file.records {
			r.w.shed += r.text
		}
		s.count -= len(file.records)
		s.bytes -= file.size
		s.files = append(s.files[:i], s.files[i+1:]...)
		file.remove()
		return true
	}
	return false
}

// get takes the oldest record out, into b. On an error b has its step and
// numbers, but no lines; how many there should be is returned either way. The
// file that it came from stays until release is called.
func (s *spool) get(b *batch) (lines int, err error) {
	i := 0
	for len(s.files[i].records) == 0 {
		i++
	}
	file := s.files[i]
	r := file.records[0]
	file.records = file.records[1:]
	s.count--
	b.w, b.end, b.text = r.w, r.end, r.text
	err = b.enc.Load(r.size, r.lines, func(p []byte) error { return file.read(r, p) })
	if err != nil {
		b.enc.Reset(b.enc.Buffer())
	}
	return r.lines, err
}

// release removes the files of which everything was taken and delivered.
func (s *spool) release() {
	if len(s.files) == 0 {
		return
	}
	for len(s.files) > 0 && len(s.files[0].records) == 0 && (len(s.files) > 1 || s.count == 0) {
		s.bytes -= s.files[0].size
		s.files[0].remove()
		s.files = s.files[1:]
	}
	if len(s.files) == 0 {
		s.marks.remove(s.dir)
	}
}

// note writes down how far the service has the lines of w.
func (s *spool) note(w *Writer) error {
	if len(s.files) == 0 {
		return nil
	}
	return s.marks.write(s.dir, w)
}

func (f *spoolFile) read(r record, p []byte) error {
	var header [recordHeader]byte
	if _, err := f.f.ReadAt(header[:], r.at); err != nil {
		return err
	}
	if _, err := f.f.ReadAt(p, r.at+recordHeader); err != nil {
		return err
	}
	if string(header[:]) != string(r.header(p)) {
		return fmt.Errorf("%s: the record at byte %d does not match its checksum", f.f.Name(), r.at)
	}
	return nil
}

func (f *spoolFile) remove() {
	_ = os.Remove(f.f.Name()) // it may be gone with its directory
	_ = f.f.Close()
}

// close removes everything, and the directory, which is the spool's own.
func (s *spool) close() {
	for _, f := range s.files {
		f.remove()
	}
	s.marks.remove(s.dir)
	if s.dir != "" {
		_ = os.Remove(s.dir) // it may not be there, or hold something of somebody else's
	}
	s.files, s.count, s.bytes = nil, 0, 0
}

// leave closes everything and leaves it on the disk, safely.
func (s *spool) leave() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.f.Sync(), f.f.Close())
	}
	errs = append(errs, s.marks.close())
	s.files, s.count, s.bytes = nil, 0, 0
	return errors.Join(errs...)
}

// marks is the file that says, for each step, how far the service has its lines.
type marks struct {
	f        *os.File
	known    map[int]bool
	complete bool // everything that was written is in the spool, or delivered
}

// mark is what it says of one step.
type mark struct {
	acked    int64 // the service has the lines before this one
	shift    int64 // what the service's numbers have on top of ours
	shed     int64 // bytes that were dropped and not yet accounted for in the log
	next     int64 // number of the line after the last; valid when complete
	blind    bool  // shift is a guess
	complete bool
}

const (
	marksName = "acked"
	markBytes = 48
	markMark  = 0x3141534C // "LSA1"
)

func (m *marks) has(w *Writer) bool { return m.known[w.index] }

func (m *marks) write(dir string, w *Writer) error {
	if m.f == nil {
		f, err := os.OpenFile(filepath.Join(dir, marksName), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		m.f, m.known = f, map[int]bool{}
	}
	v := w.mark()
	v.complete = m.complete
	_, err := m.f.WriteAt(v.encode(w.index), int64(w.index)*markBytes)
	if err == nil {
		m.known[w.index] = true
	}
	return err
}

func (m mark) encode(step int) []byte {
	flags := uint32(0)
	if m.blind {
		flags |= 1
	}
	if m.complete {
		flags |= 2
	}
	b := make([]byte, 8, markBytes)
	b = binary.LittleEndian.AppendUint32(b, uint32(step)) //nolint:gosec // at most api.MaxSteps
	b = binary.LittleEndian.AppendUint32(b, flags)
	for _, n := range []int64{m.acked, m.shift, m.shed, m.next} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n)) //nolint:gosec // read back the same way
	}
	binary.LittleEndian.PutUint32(b, markMark)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], crcTable))
	return b
}

// decodeMark reads one slot of the file.
func decodeMark(b []byte, step int) (m mark, ok bool) {
	if len(b) < markBytes || binary.LittleEndian.Uint32(b) != markMark ||
		binary.LittleEndian.Uint32(b[4:]) != crc32.Checksum(b[8:markBytes], crcTable) || int(binary.LittleEndian.Uint32(b[8:])) != step {
		return mark{}, false
	}
	flags := binary.LittleEndian.Uint32(b[12:])
	n := func(i int) int64 { return int64(binary.LittleEndian.Uint64(b[16+8*i:])) } //nolint:gosec // as it was written
	return mark{acked: n(0), shift: n(1), shed: n(2), next: n(3), blind: flags&1 != 0, complete: flags&2 != 0}, true
}

func (m *marks) remove(dir string) {
	if dir != "" {
		_ = os.Remove(filepath.Join(dir, marksName)) // it may be of another process
	}
	if m.f != nil {
		_ = m.f.Close()
	}
	*m = marks{complete: m.complete}
}

func (m *marks) close() error {
	if m.f == nil {
		return nil
	}
	err := cmp.Or(m.f.Sync(), m.f.Close())
	m.f = nil
	return err
}
