package gitserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// LFS serves the large files of every repository that next serves, from the
// directory dir: the batch API of Git LFS with basic transfers, both ways. Like
// other servers it gives out its objects at addresses with a token of their own.
func LFS(dir string, next http.Handler) http.Handler {
	s := &lfs{dir: dir}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{repo}/info/lfs/objects/batch", s.batch)
	mux.HandleFunc("PUT /lfs-objects/{oid}", s.put)
	mux.HandleFunc("GET /lfs-objects/{oid}", s.get)
	mux.Handle("/", next)
	return mux
}

const lfsToken = "Bearer of-one-object" // #nosec G101 -- for tests

type lfs struct{ dir string }

func (s *lfs) batch(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Operation string `json:"operation"`
		Objects   []struct {
			OID  string `json:"oid"`
			Size int64  `json:"size"`
		} `json:"objects"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	objects := []any{}
	for _, o := range in.Objects {
		answer := map[string]any{"oid": o.OID, "size": o.Size}
		_, err := os.Stat(s.path(o.OID))
		switch {
		case in.Operation == "download" && err != nil:
			answer["error"] = map[string]any{"code": 404, "message": "Object does not exist"}
		case in.Operation == "download" || err != nil:
			answer["actions"] = map[string]any{in.Operation: map[string]any{
				"href":   fmt.Sprintf("http://%s/lfs-objects/%s", r.Host, o.OID),
				"header": map[string]string{"Authorization": lfsToken},
			}}
		}
		objects = append(objects, answer)
	}
	w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"transfer": "basic", "objects": objects})
}

func (s *lfs) path(oid string) string { return filepath.Join(s.dir, filepath.Base(oid)) }

func (s *lfs) put(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err == nil {
		err = os.WriteFile(s.path(r.PathValue("oid")), content, 0o600)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s *lfs) get(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get("Authorization"), lfsToken) {
		http.Error(w, "another token is wanted", http.StatusForbidden)
		return
	}
	http.ServeFile(w, r, s.path(r.PathValue("oid")))
}
