package config

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func parse(t *testing.T, file string, args ...string) (*Config, error) {
	t.Helper()
	return Parse(append([]string{"--config-file", writeFile(t, file)}, args...), io.Discard)
}

func TestFlagsAndFile(t *testing.T) {
	c, err := parse(t, `{
		"registry-mirrors": ["https://mirror.example"],
		"log-opts": {"max-size": "5m"},
		"default-address-pools": [{"base": "10.9.0.0/16", "size": 24}],
		"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 100, "Hard": 200}},
		"iptables": false,
		"mtu": 1400,
		"features": {"buildkit": true}
	}`, "-H", "unix:///tmp/x.sock", "-H", "tcp://:1234", "--label", "a=b", "--bip", "10.8.0.1/24", "--debug", "--exec-opt", "native.cgroupdriver=cgroupfs", "--userland-proxy=false")
	if err != nil {
		t.Fatal(err)
	}
	if c.Firewall || c.MTU != 1400 || !c.Debug || c.LogOptions["max-size"] != "5m" || c.Ulimits["nofile"].Hard != 200 {
		t.Errorf("not all values arrived: %+v", c)
	}
	if diff := cmp.Diff([]string{"unix:///tmp/x.sock", "tcp://localhost:1234"}, c.Hosts); diff != "" {
		t.Error(diff)
	}
	if c.BridgeIP != netip.MustParsePrefix("10.8.0.1/24") || c.AddressPools[0].Size != 24 {
		t.Errorf("networks: %v %v", c.BridgeIP, c.AddressPools)
	}
	if len(c.Warnings) != 2 || !strings.Contains(c.Warnings[0], "features") || !strings.Contains(c.Warnings[1], "--userland-proxy") {
		t.Errorf("warnings: %q", c.Warnings)
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		args       []string
		want       string
	}{
		{"unknown directive", `{"nonsense": 1, "debug": true}`, nil, "the following directives don't match any configuration option: nonsense"},
		{"twice", `{"debug": true, "labels": ["a=b"]}`, []string{"--debug", "--label", "c=d"}, "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: true), labels: (from flag: c=d, from file: a=b)"},
		{"no JSON", `{`, nil, "it is not a JSON object"},
		{"wrong type", `{"debug": "yes"}`, nil, "directive debug: yes is neither true nor false"},
		{"unknown flag", `{}`, []string{"--nonsense"}, "unknown flag: --nonsense"},
		{"argument", `{}`, []string{"serve"}, "unexpected argument: serve"},
		{"npipe host", `{}`, []string{"-H", "npipe://x"}, "unsupported protocol"},
		{"bad host", `{}`, []string{"-H", "ftp://x"}, `unsupported protocol "ftp"`},
		{"bad label", `{}`, []string{"--label", "x"}, "bad attribute format: x"},
		{"bad driver", `{}`, []string{"--log-driver", "syslog"}, `"syslog" is not one of json-file, local, none`},
		{"bad log size", `{"log-opts": {"max-size": "x"}}`, nil, `failed to set log opts: invalid max-size "x"`},
		{"unknown log option", `{}`, []string{"--log-opt", "nope=1"}, "failed to set log opts: "},
		{"bip and bridge", `{}`, []string{"--bip", "10.0.0.1/8", "-b", "br0"}, "mutually exclusive"},
		{"tls without key", `{}`, []string{"--tlsverify"}, "TLS needs --tlscert and --tlskey"},
		{"unknown exec-opt", `{}`, []string{"--exec-opt", "a=b"}, "unknown option: a"},
		{"bad mirror", `{}`, []string{"--registry-mirror", "mirror"}, "invalid mirror"},
		{"bad pool", `{}`, []string{"--default-address-pool", "base=10.0.0.0/16,size=8"}, "invalid address pool"},
		{"runtime", `{}`, []string{"--default-runtime", "kata"}, `specified default runtime 'kata' does not exist`},
		{"runtime without program", `{"runtimes": {"x": {"path": "/no/such"}}}`, nil, "runtime x: "},
		{"shim", `{"runtimes": {"x": {"runtimeType": "io.containerd.kata.v2"}}}`, nil, "no containerd shim"},
		{"reserved runtime", `{}`, []string{"--add-runtime", "tare=/bin/true"}, "runtime name 'tare' is reserved"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(t, tt.file, tt.args...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// Every flag of dockerd 28 is known, and every option can be told from the others.
func TestDockerdFlags(t *testing.T) {
	names := `add-runtime allow-direct-routing allow-nondistributable-artifacts authorization-plugin bip bip6 bridge bridge-accept-fwmark
		cdi-spec-dir cgroup-parent config-file containerd containerd-namespace containerd-plugins-namespace cpu-rt-period cpu-rt-runtime
		cri-containerd data-root debug default-address-pool default-cgroupns-mode default-gateway default-gateway-v6 default-ipc-mode
		default-network-opt default-runtime default-shm-size default-ulimit dns dns-opt dns-search exec-opt exec-root experimental feature
		firewall-backend fixed-cidr fixed-cidr-v6 group host host-gateway-ip http-proxy https-proxy icc init init-path insecure-registry ip
		ip-forward ip-forward-no-drop ip-masq ip6tables iptables ipv6 label live-restore log-driver log-format log-level log-opt
		max-concurrent-downloads max-concurrent-uploads max-download-attempts metrics-addr mtu network-control-plane-mtu no-new-privileges
		no-proxy node-generic-resource pidfile raw-logs registry-mirror rootless seccomp-profile selinux-enabled shutdown-timeout
		storage-driver storage-opt swarm-default-advertise-addr tls tlscacert tlscert tlskey tlsverify userland-proxy userland-proxy-path
		userns-remap validate version`
	have, keys := map[string]bool{}, map[string]bool{}
	for _, o := range options {
		if o.name != "" && have[o.name] || o.key != "" && keys[o.key] {
			t.Errorf("option %s (%s) stands twice in the table", o.name, o.key)
		}
		have[o.name], keys[o.key] = true, true
	}
	for name := range strings.FieldsSeq(names) {
		if !have[name] {
			t.Errorf("flag --%s is missing", name)
		}
	}
}

func TestInstance(t *testing.T) {
	c := Default()
	if c.Instance() != "tare" {
		t.Errorf("default roots: %q", c.Instance())
	}
	c.DataRoot = "/tmp/x"
	if len(c.Instance()) != 8 {
		t.Errorf("other roots: %q", c.Instance())
	}
}

func FuzzFile(f *testing.F) {
	f.Add(`{"debug": true, "hosts": ["unix:///x"]}`)
	f.Add(`{"proxies": {"http-proxy": "x"}, "log-opts": {"a": "b"}}`)
	f.Fuzz(func(t *testing.T, s string) {
		path := filepath.Join(t.TempDir(), "daemon.json")
		os.WriteFile(path, []byte(s), 0o600)
		readFile(path, true)
	})
}

// TestRegistryKeys: what daemon.json says of registries and transfers has its place.
func TestRegistryKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	os.WriteFile(file, []byte(`{"registry-mirrors": ["https://m.example"], "insecure-registries": ["10.0.0.0/8"], "registries-file": "/x/r.yaml",
		"max-concurrent-downloads": 7, "max-concurrent-uploads": 8, "max-download-attempts": 9, "proxies": {"http-proxy": "http://p:1", "no-proxy": "a.b"}}`), 0o600)
	c, err := Parse([]string{"--config-file", file}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c.Mirrors[0] != "https://m.example" || c.InsecureRegistries[0] != "10.0.0.0/8" || c.RegistriesFile != "/x/r.yaml" ||
		c.MaxDownloads != 7 || c.MaxUploads != 8 || c.MaxAttempts != 9 || c.HTTPProxy != "http://p:1" || c.NoProxy != "a.b" || len(c.Warnings) > 0 {
		t.Errorf("%+v", c)
	}
	if _, err := Parse([]string{"--config-file", file, "--max-download-attempts", "0"}, io.Discard); err == nil {
		t.Error("a key in both places was taken")
	}
	os.WriteFile(file, []byte(`{"max-concurrent-downloads": 0}`), 0o600)
	if _, err := Parse([]string{"--config-file", file}, io.Discard); err == nil || !strings.Contains(err.Error(), "not at least 1") {
		t.Error(err)
	}
}
