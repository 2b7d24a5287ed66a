package gitsrc_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/gitsrc"
)

// FuzzServer: whatever a server says, a checkout ends with an error and without
// a panic, and leaves nothing behind.
func FuzzServer(f *testing.F) {
	const v2 = "001e# service=git-upload-pack\n0000000eversion 2\n000cls-refs\n0012fetch=shallow\n0000"
	hash := strings.Repeat("ab", 20)
	f.Add(v2, "003d"+hash+" refs/heads/main\n0000", "000dpackfile\n0009\x01PACK0000")
	f.Add(v2, "0052"+hash+" HEAD symref-target:refs/heads/main\n0000", "0011shallow-info\n0001000dpackfile\n0008\x03no\n0000")
	f.Add(v2, "000aERR no", "0000")
	f.Add("001e# service=git-upload-pack\n0000003f"+hash+" refs/heads/main\x00 \n0000", "0008NAK\nPACK", "")
	f.Add("0001", "0003", "ffff")
	f.Fuzz(func(t *testing.T, hello, first, second string) {
		answers := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/info/refs") {
				w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
				w.Write([]byte(hello))
				return
			}
			w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
			if answers++; answers%2 == 1 {
				w.Write([]byte(first))
			} else {
				w.Write([]byte(second))
			}
		}))
		defer server.Close()
		dir := filepath.Join(t.TempDir(), "src")
		r := gitsrc.Request{URL: server.URL + "/x", Branch: "main", Dir: dir, Engine: gitsrc.EngineGoGit}
		if result, err := gitsrc.CheckoutWith(t.Context(), r, 5*time.Second, time.Microsecond); err == nil {
			t.Errorf("Checkout() = %v", result)
		}
	})
}
