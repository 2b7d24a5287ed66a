package main

import (
	"strconv"
	"time"
)

// fill takes memory, as a program does that reads more than it should.
type fill struct {
	left   int // MiB
	step   int // MiB at a time
	held   [][]byte
	ticker *time.Ticker
}

// newFill takes all memory that it was told to take at once before it returns,
// and leaves what has a rate to ticks and more.
func (s *standin) newFill() *fill {
	f := &fill{}
	f.left, _ = strconv.Atoi(s.env("PULUMI_STANDIN_MEMORY"))
	rate, _ := strconv.Atoi(s.env("PULUMI_STANDIN_MEMORY_RATE"))
	if rate <= 0 {
		f.step = f.left
		f.more()
		return f
	}
	f.step = 1
	f.ticker = time.NewTicker(time.Second / time.Duration(rate))
	return f
}

func (f *fill) ticks() <-chan time.Time {
	if f.ticker == nil {
		return nil
	}
	return f.ticker.C
}

// more takes a step of memory and writes to each page of it.
func (f *fill) more() {
	for range min(f.step, f.left) {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		f.held = append(f.held, block)
		f.left--
	}
}

func (f *fill) stop() {
	if f.ticker != nil {
		f.ticker.Stop()
		f.ticker = nil
	}
}
