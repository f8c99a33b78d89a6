package swagger

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	openapierrors "github.com/go-openapi/errors"
	"github.com/go-openapi/spec"
)

// What is tolerated, and why:
//
//   - A status of 400 and more that an operation doesn't list: the descriptions name 400, 409 and 501 rarely,
//     Docker's engine answers with them everywhere. Its body must be an ErrorResponse.
//   - Operations with a stream, whose description is of one message or of nothing: lines are checked by themselves (lineSchemas).
//   - null where a list or an object is described: a nil slice or map of Go; Docker's clients read it as empty.
//   - What the rules below name.
func tolerated(err error) bool {
	var v *openapierrors.Validation
	if !errors.As(err, &v) {
		return false
	}
	if v.Code() == openapierrors.InvalidTypeCode && v.Value == nil || strings.HasSuffix(v.Error(), `: "null"`) {
		for _, t := range []string{"must be of type array", "must be of type object"} {
			if strings.Contains(v.Error(), t) {
				return true
			}
		}
	}
	for _, t := range tolerances {
		if strings.HasSuffix(v.Name, t.name) && strings.Contains(v.Error(), t.text) {
			return true
		}
	}
	return false
}

// tolerances are single members of answers.
var tolerances = []struct{ name, text, why string }{
	{"MemorySwappiness", `must be of type integer: "null"`, "Docker's answer where none was asked for"},
	{"OomKillDisable", `must be of type boolean: "null"`, "Docker's answer where the kernel has no such switch"},
	{"ExitCode", `must be of type integer: "null"`, "an exec that has not ended has no exit code; Docker's clients read null as that"},
}

// undescribed are routes that Docker's engine has and its description hasn't, and those that only Tare has.
var undescribed = map[string]bool{"GET /networks/": true, "POST /build/session": true}

// own are routes that only Tare has, whose answers are no objects of Docker's.
var own = regexp.MustCompile(`^(GET /images/diff|POST /images/verify|GET /images/.+/log|POST /images/.+/rollback)$`)

// errorSchema is ErrorResponse.
var errorSchema = func() *spec.Schema {
	s := new(spec.Schema).Typed("object", "")
	s.Required = []string{"message"}
	s.SetProperty("message", *spec.StringProperty())
	return s
}()

// progressSchema is a line of a pull, push, load or build. The descriptions define BuildInfo, CreateImageInfo and PushImageInfo for them
// but no operation refers to those.
var progressSchema = func() *spec.Schema {
	s := new(spec.Schema).Typed("object", "")
	for _, key := range []string{"stream", "status", "id", "error", "progress"} {
		s.SetProperty(key, *spec.StringProperty())
	}
	detail := new(spec.Schema).Typed("object", "")
	detail.SetProperty("current", *spec.Int64Property())
	detail.SetProperty("total", *spec.Int64Property())
	s.SetProperty("progressDetail", *detail)
	e := new(spec.Schema).Typed("object", "")
	e.SetProperty("code", *spec.Int64Property())
	e.SetProperty("message", *spec.StringProperty())
	e.Required = []string{"message"}
	s.SetProperty("errorDetail", *e)
	return s
}()

// lineSchemas are the operations whose answer is a stream of JSON, one value a line.
func lineSchemas(s *Spec) map[string]*spec.Schema {
	m := map[string]*spec.Schema{}
	for _, id := range []string{"ImageCreate", "ImagePush", "ImageLoad", "ImageBuild"} {
		m[id] = progressSchema
	}
	for _, o := range s.operations {
		if o.id == "SystemEvents" || o.id == "ContainerStats" {
			m[o.id] = o.responses[200]
		}
	}
	return m
}

var versionsOnce = sync.OnceValue(func() map[string]bool {
	have := map[string]bool{newest: true}
	dir, err := moduleDir()
	if err != nil {
		return have
	}
	files, _ := filepath.Glob(filepath.Join(dir, "docs", "v1.*.yaml"))
	for _, f := range files {
		if _, err := os.Stat(f); err == nil {
			have[strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "v"), ".yaml")] = true
		}
	}
	return have
})

// known tells whether answers of a version are checked: 1.24 is described in prose only, and the descriptions up
// to 1.39 have errors (a map of ports that is a list, a list of containers that is a list of lists) that were mended in later ones only.
func known(version string) bool {
	return versionsOnce()[version] && !strings.HasPrefix(version, "1.2") && !strings.HasPrefix(version, "1.3")
}
