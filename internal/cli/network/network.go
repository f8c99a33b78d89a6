// Package network is the commands about networks.
package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewList is `tare network ls`.
func NewList(env *command.Env) *cobra.Command {
	var format string
	var filters []string
	var full, quiet bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List networks", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := command.Filters(filters)
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.NetworkList(cmd.Context(), client.NetworkListOptions{Filters: f})
			if err != nil {
				return err
			}
			type row = network.Summary
			return output.Table[row]{
				Default: `table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}`, Quiet: `{{.ID}}`,
				Raw: `network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n`, RawQuiet: `network_id: {{.ID}}`,
				Labels: func(n row) map[string]string { return n.Labels },
				Columns: []output.Column[row]{
					{Name: "ID", Header: "NETWORK ID", Value: func(n row) string { return output.ID(n.ID, full) }},
					{Name: "Name", Header: "NAME", Value: func(n row) string { return n.Name }},
					{Name: "Driver", Header: "DRIVER", Value: func(n row) string { return n.Driver }},
					{Name: "Scope", Header: "SCOPE", Value: func(n row) string { return n.Scope }},
					{Name: "IPv4", Header: "IPV4", Value: func(n row) string { return output.Bool(n.EnableIPv4) }},
					{Name: "IPv6", Header: "IPV6", Value: func(n row) string { return output.Bool(n.EnableIPv6) }},
					{Name: "Internal", Header: "INTERNAL", Value: func(n row) string { return output.Bool(n.Internal) }},
					{Name: "Labels", Header: "LABELS", Value: func(n row) string { return command.Labels(n.Labels) }},
					{Name: "CreatedAt", Header: "CREATED AT", Value: func(n row) string { return n.Created.String() }},
				},
			}.Print(env.Out(), format, quiet, res.Items)
		},
	}
	cmd.Flags().BoolVar(&full, "no-trunc", false, "Do not truncate the output")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display network IDs")
	command.FilterFlag(cmd.Flags(), &filters)
	command.FormatFlag(cmd.Flags(), &format)
	return cmd
}

// NewCreate is `tare network create`.
func NewCreate(env *command.Env) *cobra.Command {
	var o client.NetworkCreateOptions
	var opts, labels, subnets, gateways, ranges, aux, ipamOpts []string
	var ipamDriver string
	var v4, v6 bool
	cmd := &cobra.Command{
		Use: "create [OPTIONS] NETWORK", Short: "Create a network", Args: command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Options, o.Labels = command.KeyValues(opts), command.KeyValues(labels)
			if cmd.Flags().Changed("ipv4") {
				o.EnableIPv4 = &v4
			}
			if cmd.Flags().Changed("ipv6") {
				o.EnableIPv6 = &v6
			}
			configs, err := ipam(subnets, gateways, ranges, aux)
			if err != nil {
				return err
			}
			o.IPAM = &network.IPAM{Driver: ipamDriver, Config: configs, Options: command.KeyValues(ipamOpts)}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.NetworkCreate(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			for _, w := range res.Warning {
				env.Warn("%s", w)
			}
			fmt.Fprintln(env.Stdout, res.ID)
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Driver, "driver", "d", "bridge", "Driver to manage the Network")
	command.CompleteWords(cmd, "driver", "bridge")
	command.List(fs, &opts, "opt", "o", "Set driver specific options")
	command.List(fs, &labels, "label", "", "Set metadata on a network")
	fs.BoolVar(&o.Internal, "internal", false, "Restrict external access to the network")
	fs.BoolVar(&o.Attachable, "attachable", false, "Enable manual container attachment")
	fs.BoolVar(&o.Ingress, "ingress", false, "Create swarm routing-mesh network")
	fs.BoolVar(&o.ConfigOnly, "config-only", false, "Create a configuration only network")
	fs.StringVar(&o.ConfigFrom, "config-from", "", "The network from which to copy the configuration")
	fs.StringVar(&o.Scope, "scope", "", "Control the network's scope")
	fs.BoolVar(&v4, "ipv4", true, "Enable or disable IPv4 address assignment")
	fs.BoolVar(&v6, "ipv6", false, "Enable or disable IPv6 address assignment")
	fs.StringVar(&ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
	command.List(fs, &ipamOpts, "ipam-opt", "", "Set IPAM driver specific options")
	fs.StringSliceVar(&subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	fs.StringSliceVar(&gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	fs.StringSliceVar(&ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	command.List(fs, &aux, "aux-address", "", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	return cmd
}

// ipam puts gateways, ranges and auxiliary addresses to the subnet that contains each.
func ipam(subnets, gateways, ranges, aux []string) ([]network.IPAMConfig, error) {
	var out []network.IPAMConfig
	for _, s := range subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet %s: %w", s, err)
		}
		for _, other := range out {
			if other.Subnet.Overlaps(p) {
				return nil, errors.New("multiple overlapping subnet configuration is not supported")
			}
		}
		out = append(out, network.IPAMConfig{Subnet: p})
	}
	in := func(a netip.Addr) *network.IPAMConfig {
		for i := range out {
			if out[i].Subnet.Contains(a) {
				return &out[i]
			}
		}
		return nil
	}
	for _, r := range ranges {
		p, err := netip.ParsePrefix(r)
		if err != nil {
			return nil, fmt.Errorf("invalid ip-range %s: %w", r, err)
		}
		c := in(p.Addr())
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for range %s", r)
		}
		if c.IPRange.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", r, c.IPRange, c.Subnet)
		}
		c.IPRange = p
	}
	for _, g := range gateways {
		a, err := netip.ParseAddr(g)
		if err != nil {
			return nil, fmt.Errorf("invalid gateway %s: %w", g, err)
		}
		c := in(a)
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for gateway %s", g)
		}
		if c.Gateway.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", g, c.Gateway, c.Subnet)
		}
		c.Gateway = a
	}
	for _, kv := range aux {
		name, v, ok := strings.Cut(kv, "=")
		a, err := netip.ParseAddr(v)
		if !ok || err != nil {
			return nil, fmt.Errorf("invalid aux-address %s (want NAME=ADDRESS)", kv)
		}
		c := in(a)
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for aux-address %s", v)
		}
		if c.AuxAddress == nil {
			c.AuxAddress = map[string]netip.Addr{}
		}
		c.AuxAddress[name] = a
	}
	return out, nil
}

// NewInspect is `tare network inspect`.
func NewInspect(env *command.Env) *cobra.Command {
	var format string
	var o client.NetworkInspectOptions
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] NETWORK [NETWORK...]", Short: "Display detailed information on one or more networks", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			var found []output.Object
			missing := command.Each(args, func(name string) error {
				got, err := c.NetworkInspect(cmd.Context(), name, o)
				if err == nil {
					found = append(found, output.Object{Value: got.Network, JSON: got.Raw})
				}
				return err
			})
			if err := output.Inspect(env.Out(), format, found); err != nil {
				return err
			}
			return missing
		},
		ValidArgsFunction: command.Complete(env, command.Networks),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template")
	cmd.Flags().BoolVarP(&o.Verbose, "verbose", "v", false, "Verbose output for diagnostics")
	return cmd
}

// NewRemove is `tare network rm`.
func NewRemove(env *command.Env) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NETWORK [NETWORK...]", Aliases: []string{"remove"}, Short: "Remove one or more networks", Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			return command.Each(args, func(name string) error {
				_, err := c.NetworkRemove(cmd.Context(), name, client.NetworkRemoveOptions{})
				if err != nil {
					if force && strings.Contains(err.Error(), "not found") {
						return nil
					}
					return err
				}
				fmt.Fprintln(env.Stdout, name)
				return nil
			})
		},
		ValidArgsFunction: command.Complete(env, command.Networks),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	return cmd
}

// NewPrune is `tare network prune`.
func NewPrune(env *command.Env) *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove all unused networks", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := command.Filters(filters)
			if !force && !env.Confirm("This will remove all custom networks not used by at least one container.") {
				return nil
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			res, err := c.NetworkPrune(cmd.Context(), client.NetworkPruneOptions{Filters: f})
			if err != nil {
				return err
			}
			if len(res.Report.NetworksDeleted) > 0 {
				fmt.Fprintln(env.Stdout, "Deleted Networks:")
				for _, n := range res.Report.NetworksDeleted {
					fmt.Fprintln(env.Stdout, n)
				}
				fmt.Fprintln(env.Stdout)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	command.PruneFilterFlag(cmd.Flags(), &filters, `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// NewConnect is `tare network connect`.
func NewConnect(env *command.Env) *cobra.Command {
	var ep network.EndpointSettings
	var ip, ip6 string
	var local, driverOpts []string
	cmd := &cobra.Command{
		Use: "connect [OPTIONS] NETWORK CONTAINER", Short: "Connect a container to a network", Args: command.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ep.DriverOpts = command.KeyValues(driverOpts)
			var ic network.EndpointIPAMConfig
			for _, a := range []struct {
				value string
				set   func(netip.Addr)
			}{{ip, func(a netip.Addr) { ic.IPv4Address = a }}, {ip6, func(a netip.Addr) { ic.IPv6Address = a }}} {
				if a.value == "" {
					continue
				}
				addr, err := netip.ParseAddr(a.value)
				if err != nil {
					return fmt.Errorf("%q is not an ip address", a.value)
				}
				a.set(addr)
				ep.IPAMConfig = &ic
			}
			for _, l := range local {
				addr, err := netip.ParseAddr(l)
				if err != nil {
					return fmt.Errorf("%q is not an ip address", l)
				}
				ic.LinkLocalIPs = append(ic.LinkLocalIPs, addr)
				ep.IPAMConfig = &ic
			}
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			_, err = c.NetworkConnect(cmd.Context(), args[0], client.NetworkConnectOptions{Container: args[1], EndpointConfig: &ep})
			return err
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Networks, command.Containers()),
	}
	fs := cmd.Flags()
	fs.StringVar(&ip, "ip", "", `IPv4 address (e.g., "172.30.100.104")`)
	fs.StringVar(&ip6, "ip6", "", `IPv6 address (e.g., "2001:db8::33")`)
	fs.StringSliceVar(&ep.Aliases, "alias", nil, "Add network-scoped alias for the container")
	command.List(fs, &ep.Links, "link", "", "Add link to another container")
	fs.StringSliceVar(&local, "link-local-ip", nil, "Add a link-local address for the container")
	fs.StringSliceVar(&driverOpts, "driver-opt", nil, "driver options for the network")
	fs.IntVar(&ep.GwPriority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
	return cmd
}

// NewDisconnect is `tare network disconnect`.
func NewDisconnect(env *command.Env) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "disconnect [OPTIONS] NETWORK CONTAINER", Short: "Disconnect a container from a network", Args: command.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			_, err = c.NetworkDisconnect(cmd.Context(), args[0], client.NetworkDisconnectOptions{Container: args[1], Force: force})
			return err
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Networks, command.Containers()),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
	return cmd
}
