package api_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longshore-run/longshore/internal/api"
)

func TestCacheOutcomesAreBounded(t *testing.T) {
	t.Parallel()
	many := "[" + strings.Repeat(`{"action":"save","manager":"npm","result":"saved","bytes":1,"took":"1s"},null,`, 5000) + `{}]`
	var got api.CacheOutcomes
	if err := json.Unmarshal([]byte(many), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) > api.MaxCacheOutcomes || len(got) == 0 {
		t.Fatalf("%d outcomes, want some, and %d at most", len(got), api.MaxCacheOutcomes)
	}
	want := api.CacheOutcome{Action: api.CacheSave, Manager: "npm", Result: api.CacheSaved, Bytes: 1, Took: api.Duration(time.Second)}
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Errorf("the first (-want +got):\n%s", diff)
	}
	if err := json.Unmarshal([]byte(`[]`), &got); err != nil || got != nil {
		t.Errorf("an empty list is read as %v, %v", got, err)
	}
	if json.Unmarshal([]byte(`[{"bytes":1e400}]`), &got) == nil || json.Unmarshal([]byte(`{}`), &got) == nil {
		t.Errorf("no error for what is no list of outcomes")
	}
}

func TestBelievableCacheOutcomes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		outcome api.CacheOutcome
		want    bool
	}{
		"a hit":               {api.CacheOutcome{Action: api.CacheRestore, Bytes: 5 << 30, Took: api.Duration(time.Hour)}, true},
		"an action of others": {api.CacheOutcome{Action: "burn"}, false},
		"less than nothing":   {api.CacheOutcome{Action: api.CacheSave, Bytes: -1}, false},
		"before its time":     {api.CacheOutcome{Action: api.CacheSave, Took: -1}, false},
		"more than a disk":    {api.CacheOutcome{Action: api.CacheSave, Bytes: 1 << 60}, false},
		"for ever":            {api.CacheOutcome{Action: api.CacheSave, Took: 1 << 62}, false},
	} {
		if got := tc.outcome.Believable(); got != tc.want {
			t.Errorf("%s: Believable() = %t, want %t", name, got, tc.want)
		}
	}
}
