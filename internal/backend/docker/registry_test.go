package docker_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/google/uuid"
)

// registry is a small read-only image registry: enough of the distribution
// protocol for a real engine to pull from it. Its one image holds a file of
// random bytes, so that no two tests share a layer.
type registry struct {
	*httptest.Server
	name  string // repository
	blobs map[string]blob
	hits  atomic.Int64

	user, password string // asked for when set
	busy           atomic.Int64
	rateLimited    bool
	stuck          chan struct{} // when set, layers are sent once it is closed
}

type blob struct {
	mediaType string
	data      []byte
}

const (
	manifestType = "application/vnd.docker.distribution.manifest.v2+json"
	configType   = "application/vnd.docker.container.image.v1+json"
	layerType    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// newRegistry starts a registry and forgets, at the end of the test, what an
// engine pulled from it.
func (e engine) newRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{name: "test/" + uuid.NewString(), blobs: map[string]blob{}}
	layer, diffID := randomLayer(t)
	config := r.add(configType, mustJSON(t, map[string]any{
		"os": "linux", "architecture": runtime.GOARCH, "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diffID}},
	}))
	manifest := r.add(manifestType, mustJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": config, "layers": []any{r.add(layerType, layer)},
	}))
	r.blobs["latest"] = r.blobs[manifest["digest"].(string)]
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	t.Cleanup(func() {
		_, err := e.ImageRemove(context.Background(), r.reference("latest"), image.RemoveOptions{Force: true})
		if err != nil && !errdefs.IsNotFound(err) {
			t.Errorf("remove image: %v", err)
		}
	})
	return r
}

// host is the registry as part of an image's name.
func (r *registry) host() string { return strings.TrimPrefix(r.URL, "http://") }

func (r *registry) reference(tag string) string { return r.host() + "/" + r.name + ":" + tag }

func (r *registry) add(mediaType string, data []byte) map[string]any {
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	r.blobs[digest] = blob{mediaType, data}
	return map[string]any{"mediaType": mediaType, "size": len(data), "digest": digest}
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.hits.Add(1)
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	user, password, _ := req.BasicAuth()
	switch {
	case r.rateLimited:
		refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "You have reached your pull rate limit.")
	case r.busy.Load() > 0:
		r.busy.Add(-1)
		refuse(w, http.StatusServiceUnavailable, "UNAVAILABLE", "the registry is being restarted")
	case r.user != "" && (user != r.user || password != r.password):
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	case req.URL.Path == "/v2/":
	default:
		parts := strings.Split(req.URL.Path, "/")
		r.serve(w, req, parts[len(parts)-1])
	}
}

func (r *registry) serve(w http.ResponseWriter, req *http.Request, id string) {
	found, ok := r.blobs[id]
	if !ok || !strings.HasPrefix(req.URL.Path, "/v2/"+r.name+"/") {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	if found.mediaType == layerType && r.stuck != nil {
		select {
		case <-r.stuck:
		case <-req.Context().Done():
		}
	}
	w.Header().Set("Content-Type", found.mediaType)
	w.Header().Set("Content-Length", fmt.Sprint(len(found.data)))
	w.Header().Set("Docker-Content-Digest", fmt.Sprintf("sha256:%x", sha256.Sum256(found.data)))
	if req.Method != http.MethodHead {
		_, _ = w.Write(found.data)
	}
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]any{"code": code, "message": message}}})
}

func randomLayer(t *testing.T) (compressed []byte, diffID string) {
	t.Helper()
	content := make([]byte, 1<<20)
	_, _ = rand.Read(content)
	var plain, zipped bytes.Buffer
	w := tar.NewWriter(&plain)
	if err := w.WriteHeader(&tar.Header{Name: "random", Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(content)
	_ = w.Close()
	z := gzip.NewWriter(&zipped)
	_, _ = io.Copy(z, bytes.NewReader(plain.Bytes()))
	_ = z.Close()
	return zipped.Bytes(), fmt.Sprintf("sha256:%x", sha256.Sum256(plain.Bytes()))
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
