// Package compat lets clients of older API versions speak to handlers of the newest.
//
//	adapter   what one operation needs below one version: a change of the request
//	          or of the answer's JSON
//	object    a JSON object that keeps the order of its members, so that what a
//	          client prints looks as before
//
// Adapters of an operation are applied one after the other: to a request from the oldest
// version to the newest, to an answer from the newest to the oldest. Handlers know nothing of versions.
package compat

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
)

// adapter changes one operation for clients below a version.
type adapter struct {
	route   string // method and pattern, as in the route table
	below   string
	request func(*http.Request) error
	answer  func(body []byte) ([]byte, error) // of status 2xx
}

// Less compares versions such as "1.9" and "1.24".
func Less(a, b string) bool {
	for {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		m, _ := strconv.Atoi(x)
		n, _ := strconv.Atoi(y)
		if m != n {
			return m < n
		}
		if a == "" && b == "" {
			return false
		}
	}
}

// Wrap calls the handler of a route with what the client's version needs around it.
func Wrap(w http.ResponseWriter, r *http.Request, route, version string, handle func(http.ResponseWriter, *http.Request) error) error {
	var use []adapter
	for _, a := range adapters {
		if a.route == route && Less(version, a.below) {
			use = append(use, a)
		}
	}
	if len(use) == 0 {
		return handle(w, r)
	}
	var answers []func([]byte) ([]byte, error)
	for i := len(use) - 1; i >= 0; i-- { // the table goes from new to old
		if use[i].request != nil {
			if err := use[i].request(r); err != nil {
				return err
			}
		}
	}
	for _, a := range use {
		if a.answer != nil {
			answers = append(answers, a.answer)
		}
	}
	if len(answers) == 0 {
		return handle(w, r)
	}
	b := &buffered{ResponseWriter: w}
	if err := handle(b, r); err != nil {
		return err
	}
	return b.finish(answers)
}

// buffered keeps an answer back until it is whole.
type buffered struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (b *buffered) WriteHeader(status int)      { b.status = status }
func (b *buffered) Write(p []byte) (int, error) { return b.body.Write(p) }

func (b *buffered) finish(change []func([]byte) ([]byte, error)) error {
	if b.status == 0 {
		b.status = http.StatusOK
	}
	body := b.body.Bytes()
	if b.status/100 == 2 {
		for _, f := range change {
			var err error
			if body, err = f(body); err != nil {
				return err
			}
		}
	}
	b.Header().Del("Content-Length")
	b.ResponseWriter.WriteHeader(b.status)
	_, err := b.ResponseWriter.Write(body)
	return err
}
