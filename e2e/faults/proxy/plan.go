package proxy

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Kind is what happens to a request.
type Kind string

// The kinds. After those of the first group the server has not seen the
// request; after those of the second it may have done what it was asked.
const (
	Pass      Kind = "pass"
	Cut       Kind = "cut"       // the connection is reset
	Answer    Kind = "answer"    // the proxy answers in the server's place
	Blackhole Kind = "blackhole" // nothing comes, for Fault.For or until the caller gives up
	Delay     Kind = "delay"     // it passes after Fault.For

	Drop        Kind = "drop"         // the server's answer is lost
	Twice       Kind = "twice"        // the server gets it twice, one after the other; the second answer counts
	Together    Kind = "together"     // the server gets it twice at the same time
	HalfRequest Kind = "half-request" // the server gets half of it
	HalfAnswer  Kind = "half-answer"  // the connection is reset in the middle of the answer
	Truncate    Kind = "truncate"     // the answer is half of it, in proper form
)

// Fault is what happens to one request. The zero value is Pass.
type Fault struct {
	Kind Kind
	For  time.Duration // of Delay and Blackhole
	// The rest is for Answer.
	Code       int
	RetryAfter string
	Over       int64  // only for requests with more bytes; others pass
	Body       string // empty: the error that a service would send
}

// Fail is an answer with an error code.
func Fail(code int) Fault { return Fault{Kind: Answer, Code: code} }

// TooLarge is a 413 for requests of more than so many bytes.
func TooLarge(over int64) Fault {
	return Fault{Kind: Answer, Code: http.StatusRequestEntityTooLarge, Over: over}
}

// Throttle is a 429 with a Retry-After header.
func Throttle(retryAfter string) Fault {
	return Fault{Kind: Answer, Code: http.StatusTooManyRequests, RetryAfter: retryAfter}
}

// Page is a 200 with the page of a proxy or portal that has nothing to do with
// the service.
func Page() Fault {
	return Fault{Kind: Answer, Code: http.StatusOK, Body: "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><h1>Please sign in to the network</h1></body></html>\n"}
}

// Block answers with the page of a proxy that lets nobody through.
func Block() Fault {
	page := Page()
	page.Code = http.StatusForbidden
	return page
}

func (f Fault) write(w http.ResponseWriter) {
	body, kind := f.Body, "text/html; charset=utf-8"
	if body == "" {
		body, kind = fmt.Sprintf(`{"code":%d,"message":"the proxy says %s"}`, f.Code, http.StatusText(f.Code)), "application/json"
	}
	w.Header().Set("Content-Type", kind)
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	w.WriteHeader(f.Code)
	fmt.Fprint(w, body)
}

// Plan chooses what happens to each request. It is called for one at a time.
type Plan interface {
	Choose(class Class, r *http.Request) Fault
}

// PlanFunc is a function as a Plan.
type PlanFunc func(class Class, r *http.Request) Fault

// Choose calls f.
func (f PlanFunc) Choose(class Class, r *http.Request) Fault { return f(class, r) }

// Rate is a fault and how likely it is, from 0 to 1.
type Rate struct {
	Chance float64
	Fault  Fault
}

// Seeded chooses by chance, in a way that can be repeated: what happens to the
// n-th request of a class depends on the seed, the class and n alone. The
// chances of a class add up to 1 at most; what is left passes.
func Seeded(seed uint64, rates map[Class][]Rate) Plan {
	s := &seeded{rates: rates, dice: map[Class]*rand.Rand{}}
	for _, class := range Classes() {
		h := fnv.New64a()
		h.Write([]byte(class))
		s.dice[class] = rand.New(rand.NewPCG(seed, h.Sum64()))
	}
	return s
}

type seeded struct {
	rates map[Class][]Rate

	mu   sync.Mutex
	dice map[Class]*rand.Rand
}

func (s *seeded) Choose(class Class, _ *http.Request) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	throw := s.dice[class].Float64()
	for _, rate := range s.rates[class] {
		if throw -= rate.Chance; throw < 0 {
			return rate.Fault
		}
	}
	return Fault{Kind: Pass}
}
