package api

import (
	"encoding/json"
	"time"
)

// CacheOutcome is what came of one entry of the dependency cache in a job.
type CacheOutcome struct {
	Action  CacheAction `json:"action"`
	Manager string      `json:"manager"` // one of those that KnownManager knows
	Result  CacheResult `json:"result"`
	Bytes   int64       `json:"bytes,omitempty"` // of the entry that was restored or saved, as it is stored
	Took    Duration    `json:"took,omitempty"`
}

// CacheAction is what a job did with an entry.
type CacheAction string

// The actions.
const (
	CacheRestore CacheAction = "restore"
	CacheSave    CacheAction = "save"
)

// CacheResult says in a word what came of it.
type CacheResult string

// The results. CacheSaved is a save's alone, the first three are a restore's.
const (
	CacheHit     CacheResult = "hit"
	CachePartial CacheResult = "partial"
	CacheMiss    CacheResult = "miss"
	CacheSaved   CacheResult = "saved"
	CacheSkipped CacheResult = "skipped"
)

// What no entry reaches.
const (
	maxCacheBytes = 1 << 40
	maxCacheTime  = 24 * time.Hour
)

// Believable reports whether an executor may have written o. Its manager and its
// result may be words of anybody's.
func (o CacheOutcome) Believable() bool {
	return (o.Action == CacheRestore || o.Action == CacheSave) &&
		o.Bytes >= 0 && o.Bytes <= maxCacheBytes && o.Took >= 0 && o.Took.Std() <= maxCacheTime
}

// Known reports whether r is one of the results of an action.
func (r CacheResult) Known(of CacheAction) bool {
	switch r {
	case CacheHit, CachePartial, CacheMiss:
		return of == CacheRestore
	case CacheSaved:
		return of == CacheSave
	case CacheSkipped:
		return true
	}
	return false
}

// KnownManager reports whether name is that of a package manager whose entries a
// cache keeps, or "plugins".
func KnownManager(name string) bool {
	switch name {
	case "npm", "yarn", "pnpm", "bun", "pip", "uv", "poetry", "go", "dotnet", "maven", "gradle", "plugins":
		return true
	}
	return false
}

// MaxCacheOutcomes is how many outcomes of one job are heard. A job has two or
// three entries.
const MaxCacheOutcomes = 32

// CacheOutcomes are the outcomes of a job. Read from JSON they are
// MaxCacheOutcomes at most, whatever was written.
type CacheOutcomes []CacheOutcome

// UnmarshalJSON reads the first MaxCacheOutcomes.
func (c *CacheOutcomes) UnmarshalJSON(data []byte) error {
	var first [MaxCacheOutcomes]*CacheOutcome // the decoder skips what has no room
	if err := json.Unmarshal(data, &first); err != nil {
		return err
	}
	*c = nil
	for _, o := range first {
		if o != nil {
			*c = append(*c, *o)
		}
	}
	return nil
}
