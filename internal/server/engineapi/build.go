package engineapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	buildtypes "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"tare/internal/base/fault"
	"tare/internal/base/filter"
	"tare/internal/build"
)

// buildService builds images.
type buildService interface {
	Build(ctx context.Context, req build.Request, out build.Output) (digest.Digest, error)
	Cache() ([]buildtypes.CacheRecord, error)
	Prune(ctx context.Context, all bool, f filter.Args, keep build.Keep) ([]string, int64, error)
}

type buildDoor struct {
	s    buildService
	auth *registry.AuthConfig
}

// build runs a build whose context is the body, a tar.
func (d buildDoor) build(w http.ResponseWriter, r *http.Request) error {
	req, err := buildRequest(r)
	if err != nil {
		return err
	}
	defer fullDuplex(w, r)()
	out := newLines(w)
	if !req.Quiet {
		tellUnused(r, out)
		id, err := d.s.Build(r.Context(), req, out)
		if err == nil {
			out.send(message{Aux: buildtypes.Result{ID: id.String()}})
		}
		return out.close(err)
	}
	id, err := d.s.Build(r.Context(), req, &kept{})
	if err == nil {
		out.Stream(id.String() + "\n")
	}
	return out.close(err)
}

// tellUnused names what was asked for, changes nothing in the image, and isn't there yet.
func tellUnused(r *http.Request, out build.Output) {
	switch r.FormValue("cachefrom") {
	case "", "null", "[]":
	default:
		out.Stream("[Warning] --cache-from has no effect: only the engine's own cache is used\n")
	}
}

// kept throws the progress of a quiet build away.
type kept struct{}

func (*kept) Stream(string)                  {}
func (*kept) Status(_, _ string, _, _ int64) {}

// buildRequest decodes the query. What can't be honoured is refused by name.
func buildRequest(r *http.Request) (build.Request, error) {
	var req build.Request
	if err := parseForm(r); err != nil {
		return req, err
	}
	if v := r.FormValue("version"); v != "" && v != string(buildtypes.BuilderV1) {
		return req, fault.Unsupported("this engine has no BuildKit session API: build with DOCKER_BUILDKIT=0")
	}
	for _, key := range []string{"squash", "outputs", "cgroupparent", "memswap", "securityopt"} {
		switch v := r.FormValue(key); v {
		case "", "0", "false", "null", "[]":
		default:
			return req, fault.Unsupported("build option %s=%s is not supported by this engine", key, v)
		}
	}
	if v := r.FormValue("isolation"); v != "" && !container.Isolation(v).IsDefault() {
		return req, fault.Invalid("Unsupported isolation: %q", v)
	}
	req = build.Request{
		Context: r.Body, Remote: r.FormValue("remote"), Dockerfile: r.FormValue("dockerfile"), Tags: r.Form["t"],
		Target: r.FormValue("target"), Platform: r.FormValue("platform"),
		NoCache: boolean(r, "nocache"), Pull: boolean(r, "pull"), Network: r.FormValue("networkmode"),
		CPUSetCPUs: r.FormValue("cpusetcpus"), Quiet: boolean(r, "q"), RemoveSteps: booleanOr(r, "rm", true),
	}
	if req.Remote != "" {
		req.Context = nil
	}
	for _, n := range []struct {
		key string
		to  *int64
	}{{"shmsize", &req.ShmSize}, {"memory", &req.Memory}, {"cpushares", &req.CPUShares}, {"cpuquota", &req.CPUQuota}, {"cpuperiod", &req.CPUPeriod}} {
		var err error
		if *n.to, err = number(r, n.key, 0); err != nil {
			return req, err
		}
	}
	var ulimits []*container.Ulimit
	for _, j := range []struct {
		key string
		to  any
	}{{"buildargs", &req.BuildArgs}, {"labels", &req.Labels}, {"ulimits", &ulimits}} {
		if s := r.FormValue(j.key); s != "" {
			if err := json.Unmarshal([]byte(s), j.to); err != nil {
				return req, fault.Invalid("error reading %s: %w", j.key, err)
			}
		}
	}
	for _, u := range ulimits {
		req.Ulimits = append(req.Ulimits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	for _, h := range r.Form["extrahosts"] {
		// A client sends a list as several values or as one in JSON.
		var list []string
		if json.Unmarshal([]byte(h), &list) != nil {
			list = []string{h}
		}
		req.ExtraHosts = append(req.ExtraHosts, list...)
	}
	var err error
	req.Auths, err = registryConfig(r)
	return req, err
}

// registryConfig decodes X-Registry-Config, base64url of a map from host to credentials.
func registryConfig(r *http.Request) (map[string]registry.AuthConfig, error) {
	h := r.Header.Get("X-Registry-Config")
	if h == "" {
		return nil, nil
	}
	data, err := base64.URLEncoding.DecodeString(h)
	if err != nil {
		return nil, fault.Invalid("invalid X-Registry-Config header: must be a valid base64url-encoded string")
	}
	var auths map[string]registry.AuthConfig
	if err := json.Unmarshal(data, &auths); err != nil {
		return nil, fault.Invalid("invalid X-Registry-Config header: %w", err)
	}
	return auths, nil
}

func (d buildDoor) prune(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(r); err != nil {
		return err
	}
	var keep build.Keep
	for _, n := range []struct {
		key string
		to  *int64
	}{{"keep-storage", &keep.Reserved}, {"reserved-space", &keep.Reserved}, {"max-used-space", &keep.Most}, {"min-free-space", &keep.Free}} {
		var err error
		if *n.to, err = number(r, n.key, *n.to); err != nil {
			return err
		}
	}
	f, err := filters(r)
	if err != nil {
		return err
	}
	ids, bytes, err := d.s.Prune(r.Context(), boolean(r, "all"), f, keep)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, buildtypes.CachePruneReport{CachesDeleted: orEmpty(ids), SpaceReclaimed: uint64(bytes)})
}

func noBuildKit(http.ResponseWriter, *http.Request) error {
	return fault.Unsupported("this engine has no BuildKit session API: build with DOCKER_BUILDKIT=0")
}
