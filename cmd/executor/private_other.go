//go:build !linux

package main

import "errors"

func forbidReading() error { return errors.New("jobs run on linux only") }
