package gitsrc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longshore-run/longshore/internal/gitsrc"
)

// TestWhatCanGoWrong: one kind and one message for each, with what to check.
func TestWhatCanGoWrong(t *testing.T) { eachEngine(t, testWhatCanGoWrong) }

func testWhatCanGoWrong(t *testing.T, on engine) {
	o := newOrigin(t)
	server := serve(t, o.backend())
	closed := fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	tls := httptest.NewTLSServer(o.backend())
	tls.Config.ErrorLog = nil
	t.Cleanup(tls.Close)
	for name, tc := range map[string]struct {
		req  gitsrc.Request
		kind gitsrc.Kind
		text string
	}{
		"no URL":                           {gitsrc.Request{}, gitsrc.KindRequest, "is empty"},
		"a local path":                     {gitsrc.Request{URL: "/srv/repo"}, gitsrc.KindRequest, "Local paths are not supported"},
		"a file URL":                       {gitsrc.Request{URL: "file:///srv/repo"}, gitsrc.KindRequest, "file:// are not supported"},
		"a URL that is none":               {gitsrc.Request{URL: "https://me:s3cr3t%zz@host/x"}, gitsrc.KindRequest, "cannot be read"},
		"a URL with no repository":         {gitsrc.Request{URL: "https://host/"}, gitsrc.KindRequest, "no repository"},
		"a URL that is an option":          {gitsrc.Request{URL: "--upload-pack=x"}, gitsrc.KindRequest, "character"},
		"branch and commit":                {gitsrc.Request{URL: server + "/repo.git", Branch: "main", Commit: o.main}, gitsrc.KindRequest, "both set"},
		"a branch that is an option":       {gitsrc.Request{URL: server + "/repo.git", Branch: "--upload-pack=x"}, gitsrc.KindRequest, "not a branch name"},
		"a commit that is none":            {gitsrc.Request{URL: server + "/repo.git", Commit: "main"}, gitsrc.KindRequest, "not a commit hash"},
		"a host that is unknown":           {gitsrc.Request{URL: "https://no-such-host.invalid/x/y"}, gitsrc.KindHostUnknown, "no-such-host.invalid"},
		"nobody listens":                   {gitsrc.Request{URL: closed + "/x/y"}, gitsrc.KindRefused, "connection refused"},
		"an authority not trusted":         {gitsrc.Request{URL: tls.URL + "/repo.git"}, gitsrc.KindTLS, "trust store"},
		"https to an http port":            {gitsrc.Request{URL: strings.Replace(server, "http:", "https:", 1) + "/repo.git"}, gitsrc.KindTLS, "does not speak TLS"},
		"no such repository":               {gitsrc.Request{URL: server + "/other.git"}, gitsrc.KindNotFound, "set gitAuth"},
		"no such repository, or right":     {gitsrc.Request{URL: server + "/other.git", Auth: gitsrc.Auth{Token: secret}}, gitsrc.KindNotFound, "may not see the repository"},
		"a web page":                       {gitsrc.Request{URL: serve(t, page("<html>Log in")) + "/x"}, gitsrc.KindNotGit, "not a git server"},
		"git's type, but not git":          {gitsrc.Request{URL: serve(t, lie()) + "/x"}, gitsrc.KindNotGit, "not a git server"},
		"a branch that is not there":       {gitsrc.Request{URL: server + "/repo.git", Branch: "mian"}, gitsrc.KindRefUnknown, "There are main"},
		"a commit that is not there":       {gitsrc.Request{URL: server + "/repo.git", Commit: strings.Repeat("ab", 20)}, gitsrc.KindRefUnknown, "not our ref"},
		"an old server has no such commit": {gitsrc.Request{URL: serve(t, old(o.backend())) + "/repo.git", Commit: strings.Repeat("ab", 20)}, gitsrc.KindRefUnknown, "reaches commit"},
		"a short commit that is not there": {gitsrc.Request{URL: server + "/repo.git", Commit: strings.Repeat("0", 8)}, gitsrc.KindRefUnknown, "reaches commit"},
		"a server in trouble":              {gitsrc.Request{URL: serve(t, status(503, "come back later")) + "/x"}, gitsrc.KindServer, "come back later"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, lines, err := on.checkout(t, tc.req)
			noSecret(t, "progress", lines)
			wantKind(t, err, tc.kind, tc.text)
		})
	}
}

func page(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, text)
	})
}

func lie() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		fmt.Fprint(w, "hello, world")
	})
}

func TestEmptyRepository(t *testing.T) { eachEngine(t, testEmptyRepository) }

func testEmptyRepository(t *testing.T, on engine) {
	o := newOrigin(t)
	empty := filepath.Join(filepath.Dir(o.dir), "empty.git")
	o.git(t, filepath.Dir(o.dir), "init", "-q", "--bare", empty)
	_, _, err := on.checkout(t, gitsrc.Request{URL: serve(t, o.backend()) + "/empty.git"})
	wantKind(t, err, gitsrc.KindRefUnknown, "no commit yet")
}

// TestRetries: faults of the network are tried again, three times at most, and
// said; answers are not.
func TestRetries(t *testing.T) { eachEngine(t, testRetries) }

func testRetries(t *testing.T, on engine) {
	o := newOrigin(t)
	for name, tc := range map[string]struct {
		broken int64 // how many first requests fail
		fail   http.HandlerFunc
		calls  int64 // of the list of refs
		kind   gitsrc.Kind
	}{
		"a connection that breaks twice":          {2, hangUp, 3, ""},
		"trouble of the server that passes":       {1, status(502, "no").ServeHTTP, 2, ""},
		"a connection that breaks again":          {99, hangUp, 4, gitsrc.KindNetwork},
		"an answer that is no fault of a network": {99, status(403, "no").ServeHTTP, 1, gitsrc.KindForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/info/refs") && calls.Add(1) <= tc.broken {
					tc.fail(w, r)
					return
				}
				o.backend().ServeHTTP(w, r)
			})) + "/repo.git"
			got, lines, err := on.checkout(t, gitsrc.Request{URL: url, Branch: "main"})
			if tc.kind == "" && (err != nil || got.Commit != o.main) {
				t.Errorf("Checkout() = %+v, %v", got, err)
			} else if tc.kind != "" {
				wantKind(t, err, tc.kind)
			}
			if calls.Load() != tc.calls {
				t.Errorf("asked %d times, want %d", calls.Load(), tc.calls)
			}
			if said := int64(strings.Count(lines, "trying again")); said != tc.calls-1 {
				t.Errorf("said so %d times, want %d: %s", said, tc.calls-1, lines)
			}
		})
	}
}

func hangUp(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

// TestCutInThePack: a pack that ends too early is got again, whole.
func TestCutInThePack(t *testing.T) { eachEngine(t, testCutInThePack) }

func testCutInThePack(t *testing.T, on engine) {
	o := newOrigin(t)
	var packs atomic.Int64
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asksForPack(r) && packs.Add(1) == 1 {
			rec := httptest.NewRecorder()
			o.backend().ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.Write(rec.Body.Bytes()[:rec.Body.Len()-100])
			w.(http.Flusher).Flush()
			hangUp(w, r)
			return
		}
		o.backend().ServeHTTP(w, r)
	})) + "/repo.git"
	dir := filepath.Join(t.TempDir(), "src")
	got, lines, err := on.checkout(t, gitsrc.Request{URL: url, Branch: "main", Dir: dir})
	if err != nil || got.Commit != o.main || packs.Load() != 2 {
		t.Errorf("Checkout() = %+v, %v after %d packs: %s", got, err, packs.Load(), lines)
	}
	o.git(t, dir, "fsck", "--strict")
}

// TestBranchMoves: a branch that is rewritten between the list of refs and the
// request for its commit is taken where it is then.
func TestBranchMoves(t *testing.T) { eachEngine(t, testBranchMoves) }

func testBranchMoves(t *testing.T, on engine) {
	o := newOrigin(t)
	var moved atomic.Bool
	url := serve(t, old(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asksForPack(r) && moved.CompareAndSwap(false, true) {
			o.git(t, o.dir, "branch", "-f", "feature/dev", o.first)
		}
		o.backend().ServeHTTP(w, r)
	}))) + "/repo.git"
	got, _, err := on.checkout(t, gitsrc.Request{URL: url, Branch: "feature/dev"})
	if err != nil || got.Commit != o.first {
		t.Errorf("Checkout() = %+v, %v, want %s", got, err, o.first)
	}
}

// TestStall: a server that goes silent is not waited for for ever.
func TestStall(t *testing.T) { eachEngine(t, testStall) }

func testStall(t *testing.T, on engine) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(server.Close)
	_, err := gitsrc.CheckoutWith(t.Context(), gitsrc.Request{Engine: on.Engine, URL: server.URL + "/x", Dir: filepath.Join(t.TempDir(), "src")}, 50*time.Millisecond, time.Millisecond)
	wantKind(t, err, gitsrc.KindTimeout, "no byte came")
}

// TestCancel: wherever a checkout is, it ends soon, says why, and leaves the
// directory as it was and no goroutine (TestMain looks for those).
func TestCancel(t *testing.T) { eachEngine(t, testCancel) }

func testCancel(t *testing.T, on engine) {
	o := newOrigin(t)
	enough := errors.New("enough")
	private, public := keygen(t, filepath.Join(t.TempDir(), "key"), "ed25519", "")
	sshd := newSSHServer(t, o, public)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]func(t *testing.T, cancel func()) gitsrc.Request{
		"before it begins": func(_ *testing.T, cancel func()) gitsrc.Request {
			cancel()
			return gitsrc.Request{URL: sshd.url}
		},
		"in the list of refs": func(t *testing.T, cancel func()) gitsrc.Request {
			return gitsrc.Request{URL: serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				cancel()
				<-r.Context().Done()
			})) + "/x"}
		},
		"in the pack": func(t *testing.T, cancel func()) gitsrc.Request {
			return gitsrc.Request{URL: serve(t, old(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
					o.backend().ServeHTTP(w, r)
					return
				}
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
				fmt.Fprintf(w, "0034shallow %s00000008NAK\n000d\x01PACK\x00\x00\x00\x02", o.main)
				w.(http.Flusher).Flush()
				cancel()
				<-r.Context().Done()
			}))) + "/repo.git"}
		},
		"while it waits to try again": func(t *testing.T, cancel func()) gitsrc.Request {
			return gitsrc.Request{URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				hangUp(w, r)
				cancel()
			})) + "/x"}
		},
		"in the SSH handshake": func(t *testing.T, cancel func()) gitsrc.Request {
			done := make(chan struct{})
			go func() {
				defer close(done)
				conn, err := silent.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				cancel()
				io.Copy(io.Discard, conn)
			}()
			t.Cleanup(func() { silent.Close(); <-done })
			return gitsrc.Request{URL: "ssh://git@" + silent.Addr().String() + "/x", Auth: gitsrc.Auth{SSHKey: private}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			var at atomic.Int64
			r := run(t, func() { at.CompareAndSwap(0, time.Now().UnixNano()); cancel(enough) })
			r.Dir, r.Engine = filepath.Join(t.TempDir(), "src"), on.Engine
			if r.KnownHosts == nil {
				r.KnownHosts = []string{sshd.knownHosts}
			}
			_, err := gitsrc.CheckoutWith(ctx, r, time.Minute, time.Minute)
			if took := time.Since(time.Unix(0, at.Load())); took > 2*time.Second {
				t.Errorf("it took %s to end", took)
			}
			wantKind(t, err, gitsrc.KindCancelled)
			if !errors.Is(err, enough) {
				t.Errorf("error = %v, want the cause of the cancel in its chain", err)
			}
			if _, err := os.Lstat(r.Dir); !os.IsNotExist(err) {
				t.Errorf("%s was left behind", r.Dir)
			}
		})
	}
}

// TestEveryKindIsDocumented: the table of docs/source.md has each kind once.
func TestEveryKindIsDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "source.md"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := regexp.MustCompile(`(?m)^\tKind\w+ +Kind = "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(kinds) < 20 {
		t.Fatalf("found %d kinds", len(kinds))
	}
	for _, kind := range kinds {
		if n := strings.Count(string(page), "\n| "+kind[1]+" | "); n != 1 {
			t.Errorf("docs/source.md has %d lines for %s, want 1", n, kind[1])
		}
	}
}
