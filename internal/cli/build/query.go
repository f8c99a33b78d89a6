package build

import (
	"encoding/json"
	"net/url"
	"strconv"

	"github.com/moby/moby/client"
)

// query says the options in POST /build's words.
func query(o client.ImageBuildOptions) (url.Values, error) {
	q := url.Values{}
	for key, list := range map[string][]string{"t": o.Tags, "securityopt": o.SecurityOpt, "extrahosts": o.ExtraHosts} {
		if len(list) > 0 {
			q[key] = list
		}
	}
	for key, v := range map[string]string{"remote": o.RemoteContext, "dockerfile": o.Dockerfile, "target": o.Target, "isolation": string(o.Isolation),
		"cpusetcpus": o.CPUSetCPUs, "cpusetmems": o.CPUSetMems, "networkmode": o.NetworkMode, "cgroupparent": o.CgroupParent} {
		if v != "" {
			q.Set(key, v)
		}
	}
	for key, v := range map[string]bool{"q": o.SuppressOutput, "nocache": o.NoCache, "forcerm": o.ForceRemove, "pull": o.PullParent, "squash": o.Squash} {
		if v {
			q.Set(key, "1")
		}
	}
	if !o.Remove {
		q.Set("rm", "0")
	}
	for key, v := range map[string]int64{"cpushares": o.CPUShares, "cpuquota": o.CPUQuota, "cpuperiod": o.CPUPeriod, "memory": o.Memory,
		"memswap": o.MemorySwap, "shmsize": o.ShmSize} {
		if v != 0 {
			q.Set(key, strconv.FormatInt(v, 10))
		}
	}
	for key, v := range map[string]any{"ulimits": o.Ulimits, "buildargs": o.BuildArgs, "labels": o.Labels, "cachefrom": o.CacheFrom} {
		data, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		if s := string(data); s != "null" && s != "{}" && s != "[]" {
			q.Set(key, s)
		}
	}
	if len(o.Platforms) > 0 {
		p := o.Platforms[0]
		s := p.OS
		for _, part := range []string{p.Architecture, p.Variant} {
			if part != "" {
				s += "/" + part
			}
		}
		q.Set("platform", s)
	}
	return q, nil
}
