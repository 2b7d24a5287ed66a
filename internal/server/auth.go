package server

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/control"
)

// accepted returns the kinds of token that open a route, none for a route that
// needs no token. It says the same as "security" in api/openapi.yaml.
func accepted(pattern string) []control.Kind {
	switch {
	case pattern == "/api/capabilities":
		return nil
	case pattern == "/api/deployments/executor":
		return []control.Kind{control.KindPool, control.KindJob, control.KindUser}
	case strings.HasPrefix(pattern, "/api/deployments/"):
		return []control.Kind{control.KindPool}
	case strings.HasPrefix(pattern, "/api/workflow/"):
		return []control.Kind{control.KindJob}
	case strings.HasSuffix(pattern, "/deployments/cache/url"), strings.HasSuffix(pattern, "/deployments/cache/entries/{key}"):
		return []control.Kind{control.KindUser, control.KindJob}
	case pattern == "/api/user", strings.HasPrefix(pattern, "/api/user/"):
		return []control.Kind{control.KindUser, control.KindJob}
	}
	return []control.Kind{control.KindUser}
}

// caller is who sent a request.
type caller struct {
	control.Principal
	token string
}

type callerKey struct{}

// from returns who sent r. Behind authenticate there is always somebody, but on
// routes that need no token.
func from(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// authenticate lets through who has a token of the right kind. It comes before
// anything else is read, so that a stranger learns nothing from the answers.
func (s *Server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kinds := accepted(chi.RouteContext(r.Context()).RoutePattern())
		if len(kinds) == 0 {
			next.ServeHTTP(w, r)
			return
		}
		token, err := tokenOf(r.Header.Get("Authorization"))
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		principal, err := s.service.Authenticate(r.Context(), token)
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		if !slices.Contains(kinds, principal.Kind) {
			s.writeError(w, r, api.Errorf(http.StatusForbidden, "this call takes a %s token, and this is a %s token", oneOf(kinds), principal.Kind))
			return
		}
		ctx := context.WithValue(r.Context(), callerKey{}, caller{principal, token})
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// tokenOf returns the token in an Authorization header. The scheme may be
// "token", which is what Pulumi's programs send, or "Bearer".
func tokenOf(header string) (string, error) {
	if header == "" {
		return "", api.Errorf(http.StatusUnauthorized, "no token: send the header Authorization: token <your token>")
	}
	scheme, token, _ := strings.Cut(strings.TrimSpace(header), " ")
	token = strings.TrimSpace(token)
	if token == "" || !strings.EqualFold(scheme, "token") && !strings.EqualFold(scheme, "bearer") {
		return "", api.Errorf(http.StatusUnauthorized, "the Authorization header is not understood: send Authorization: token <your token>")
	}
	return token, nil
}

func oneOf(kinds []control.Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, " or ")
}
