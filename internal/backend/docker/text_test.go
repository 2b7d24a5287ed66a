package docker

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestProgress(t *testing.T) {
	layer := func(id, status string, current, total int) string {
		return fmt.Sprintf(`{"id":%q,"status":%q,"progressDetail":{"current":%d,"total":%d}}`, id, status, current, total)
	}
	for name, test := range map[string]struct {
		stream []string
		want   string
		err    string
	}{
		"a layer's line is written at most once a second, and its last one always": {
			stream: []string{
				`{"status":"Pulling from library/x","id":"latest"}`,
				layer("aaa", "Pulling fs layer", 0, 0),
				layer("aaa", "Downloading", 1e6, 4e6),
				layer("aaa", "Downloading", 2e6, 4e6),
				layer("bbb", "Waiting", 0, 0),
				layer("aaa", "Downloading", 3e6, 4e6),
				layer("aaa", "Downloading", 4e6, 4e6),
				layer("aaa", "Pull complete", 0, 0),
				layer("bbb", "Already exists", 0, 0),
				`{"status":"Digest: sha256:123"}`,
				`{"status":"Status: Downloaded newer image for x:latest"}`,
			},
			want: "Pulling from library/x\naaa: Downloading 3MB of 4MB\nbbb: Waiting\n" +
				"aaa: Pull complete\nbbb: Already exists\nDigest: sha256:123\nStatus: Downloaded newer image for x:latest\n",
		},
		"the engine's error is the error": {
			stream: []string{layer("aaa", "Downloading", 1, 2), `{"error":"short","errorDetail":{"message":"no space left on device"}}`},
			want:   "aaa: Downloading 1B of 2B\n", err: "no space left on device",
		},
		"a stream that breaks off is an error": {stream: []string{`{"status":`}, err: "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			var now time.Time
			clock := func() time.Time {
				now = now.Add(200 * time.Millisecond) // asked once a message, twice when lines are written
				return now
			}
			var out strings.Builder
			err := copyProgress(&out, strings.NewReader(strings.Join(test.stream, "\n")), clock)
			if got := fmt.Sprint(err); (test.err == "") != (err == nil) || (err != nil && got != test.err) {
				t.Errorf("copyProgress() = %v, want %q", err, test.err)
			}
			if diff := cmp.Diff(test.want, out.String()); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLookups(t *testing.T) {
	const passwd = "root:x:0:0::/:/bin/sh\nbroken\nworker:x:1234:2345::/:/bin/sh\n1234:x:9:9::/:\n"
	for name, want := range map[string]account{"worker": {1234, 2345}, "1234": {1234, 2345}, "77": {77, 0}} {
		if got, err := lookupUser(passwd, name); err != nil || got != want {
			t.Errorf("lookupUser(%q) = %+v, %v, want %+v", name, got, err, want)
		}
	}
	if _, err := lookupUser(passwd, "nobody"); err == nil || !strings.Contains(err.Error(), "/etc/passwd") {
		t.Errorf("lookupUser(nobody) = %v, want where it looked", err)
	}
	if got, err := lookupGroup("a:x:1:\nstaff:x:50:me\n", "staff"); err != nil || got != 50 {
		t.Errorf("lookupGroup(staff) = %d, %v, want 50", got, err)
	}
	if _, err := lookupGroup("", "staff"); err == nil {
		t.Error("lookupGroup() finds what is not there")
	}
}

func TestWhatIsTriedAgain(t *testing.T) {
	for text, want := range map[string]bool{
		"Get https://x/v2/: dial tcp 10.0.0.1:443: connect: connection refused":             true,
		"Get https://x/v2/: net/http: TLS handshake timeout":                                true,
		"received unexpected HTTP status: 503 Service Unavailable":                          true,
		"dial tcp: lookup registry.internal on 10.0.0.2:53: no such host":                   true,
		"manifest for x:1 not found: manifest unknown: manifest unknown":                    false,
		"pull access denied for x, repository does not exist or may require 'docker login'": false,
		"toomanyrequests: You have reached your pull rate limit":                            false,
		"no matching manifest for linux/arm64/v8 in the manifest list entries":              false,
		"write /var/lib/docker/tmp/x: no space left on device":                              false,
	} {
		if got := passing(errors.New(text)); got != want {
			t.Errorf("passing(%q) = %t, want %t", text, got, want)
		}
	}
}

func TestReportsThatAreNone(t *testing.T) {
	for _, text := range []string{"", "{", "[]", "7", strings.Repeat("x", 100)} {
		if got := parseReport(text); got != nil {
			t.Errorf("parseReport(%q) = %+v, want nil", text, got)
		}
	}
	if got := parseReport(`{"outcome":"succeeded","unknown":1}`); got == nil || got.Outcome != "succeeded" {
		t.Errorf("parseReport() = %+v, want the outcome", got)
	}
}
