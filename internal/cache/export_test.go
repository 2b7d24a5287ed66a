package cache

// SetSegment makes the ranges of a download smaller.
func (c *Cache) SetSegment(n int64) { c.transfer.Segment = n }
