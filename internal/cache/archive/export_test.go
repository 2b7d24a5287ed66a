package archive

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Chunk is what an archive made by hand consists of.
type Chunk struct {
	Part uint32
	Raw  []byte
}

// Made puts an archive together from chunks and a manifest, right or wrong.
func Made(t testing.TB, m Manifest, chunks ...Chunk) []byte {
	t.Helper()
	packer, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer packer.Close()
	var b bytes.Buffer
	out := &output{w: &b, limit: 1 << 30, sum: sumWriter{sha256.New()}}
	for _, c := range chunks {
		packed := packer.EncodeAll(c.Raw, nil)
		frame := index{packed: uint32(len(packed)), raw: uint32(len(c.Raw)), part: c.Part}.append(nil)
		if err := out.write(append(frame, packed...)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.finish(&m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// PartSize is the most of a file that is in one chunk.
const PartSize = partSize
