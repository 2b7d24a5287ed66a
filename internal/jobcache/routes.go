package jobcache

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/blob"
	"github.com/longshore-run/longshore/internal/cachestore"
)

// maxBody is the most bytes that the body of a call may have.
const maxBody = 16 << 10

func (s *Server) routes() http.Handler {
	const stack = "/api/stacks/{org}/{project}/{stack}/deployments/cache"
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+stack+"/url", s.answer(s.link))
	mux.HandleFunc("DELETE "+stack+"/entries/{key}", s.answer(s.drop))
	if s.Blobs != nil {
		mux.Handle(blob.Path, s.Blobs)
	}
	return mux
}

// call is one call for the entries of a stack.
type call struct {
	*http.Request
	owner cachestore.Owner
}

// answer lets those through who have the token for a stack.
func (s *Server) answer(f func(http.ResponseWriter, call) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := call{r, cachestore.Owner{Organization: r.PathValue("org"), Project: r.PathValue("project"), Stack: r.PathValue("stack")}}
		out, err := any(nil), error(nil)
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "token "); !ok || !s.allowed(token, c.owner) {
			err = api.Errorf(http.StatusForbidden, "the token does not open this cache: it is for another stack, or its job has ended")
		} else {
			out, err = f(w, c)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if err != nil {
			var e *api.Error
			if !errors.As(err, &e) {
				s.Log.Warn("dependency cache", zap.Error(err))
				e = api.Errorf(http.StatusServiceUnavailable, "the bucket of the dependency cache cannot be used now")
			}
			w.WriteHeader(e.Code)
			out = e
		}
		_ = json.NewEncoder(w).Encode(out) // a job that went away is no error of ours
	}
}

func (s *Server) link(w http.ResponseWriter, c call) (any, error) {
	var req api.CacheURLRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, c.Body, maxBody)).Decode(&req); err != nil {
		return nil, api.Errorf(http.StatusBadRequest, "the body is no JSON object of a method and a key")
	}
	if err := check("key", req.Key); err != nil {
		return nil, err
	}
	if req.Prefix != "" {
		if err := check("prefix", req.Prefix); err != nil {
			return nil, err
		}
	}
	var link cachestore.Link
	var err error
	switch req.Method {
	case http.MethodGet:
		link, err = s.Store.Get(c.Context(), c.owner, req.Key, req.Prefix)
	case http.MethodPut:
		link, err = s.Store.Put(c.Context(), c.owner, req.Key)
	default:
		return nil, api.Errorf(http.StatusBadRequest, "method: want GET or PUT")
	}
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(link.URL, "/") {
		link.URL = "http://" + c.Host + link.URL // as this job reaches us
	}
	return api.CacheURLResponse{URL: link.URL, Key: link.Key, Size: link.Size}, nil
}

func (s *Server) drop(_ http.ResponseWriter, c call) (any, error) {
	if err := check("key", c.PathValue("key")); err != nil {
		return nil, err
	}
	return struct{}{}, s.Store.Drop(c.Context(), c.owner, c.PathValue("key"))
}

func check(field, key string) error {
	if err := cachestore.CheckKey(key); err != nil {
		return &api.Error{Code: http.StatusBadRequest, Message: fmt.Sprintf("%s: %v", field, err)}
	}
	return nil
}
