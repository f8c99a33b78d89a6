package network

import (
	"net/netip"
	"strconv"

	"tare/internal/base/fault"
)

// parseOptions decodes a network's driver options; one that is not honoured is an error.
func parseOptions(opts map[string]string) (options, error) {
	o := options{icc: true, masq: true, ifPrefix: "eth"}
	for k, v := range opts {
		var err error
		switch k {
		case optName, optDefault:
		case optICC:
			o.icc, err = strconv.ParseBool(v)
		case optMasq:
			o.masq, err = strconv.ParseBool(v)
		case optHostBinding:
			if v != "" {
				o.hostBinding, err = netip.ParseAddr(v)
			}
			if err == nil && v != "" && !o.hostBinding.Is4() {
				return o, fault.Invalid("invalid value %q for option %s: not an IPv4 address", v, k)
			}
		case optMTU:
			o.mtu, err = strconv.Atoi(v)
			if err == nil && (o.mtu < 0 || o.mtu > 65535 || o.mtu > 0 && o.mtu < 68) {
				return o, fault.Invalid("invalid value %q for option %s: between 68 and 65535", v, k)
			}
		case optIfPrefix:
			o.ifPrefix = v
			if !validIfname(v + "000") {
				return o, fault.Invalid("invalid value %q for option %s", v, k)
			}
		case optGatewayMode:
			if v != "" && v != "nat" {
				return o, fault.Unsupported("option %s=%s is not supported: only nat is", k, v)
			}
		default:
			return o, fault.Invalid("network driver bridge has no option %q", k)
		}
		if err != nil {
			return o, fault.Invalid("invalid value %q for option %s: %w", v, k, err)
		}
	}
	return o, nil
}

// validIfname accepts what the kernel does, less what would be a path.
func validIfname(s string) bool {
	if s == "" || len(s) > 15 || s == "." || s == ".." {
		return false
	}
	for _, r := range s {
		if r <= ' ' || r > '~' || r == '/' || r == ':' {
			return false
		}
	}
	return true
}
