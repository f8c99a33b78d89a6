package image

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	"tare/internal/cli/command"
	"tare/internal/cli/output"
)

// NewLog is `tare image log`.
func NewLog(env *command.Env) *cobra.Command {
	var format string
	var full bool
	cmd := &cobra.Command{
		Use: "log [OPTIONS] NAME[:TAG]", Short: "Show what a tag stood for, newest first", Args: command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			type move struct {
				Time             time.Time
				Name, ID, Target string
				Here             bool
			}
			var moves []move
			if err := env.Call(cmd.Context(), c, http.MethodGet, "/images/"+args[0]+"/log", nil, nil, &moves); err != nil {
				return err
			}
			gone := func(s string) string {
				if s == "" {
					return "<untagged>"
				}
				return output.ID(s, full)
			}
			return output.Table[move]{
				Default: `table {{.Since}}\t{{.ID}}\t{{.Target}}\t{{.Here}}`, Quiet: `{{.ID}}`,
				Columns: []output.Column[move]{
					{Name: "Since", Header: "SINCE", Value: func(m move) string { return output.Age(m.Time) }},
					{Name: "Time", Header: "TIME", Value: func(m move) string { return m.Time.Local().Format(time.RFC3339) }},
					{Name: "Name", Header: "NAME", Value: func(m move) string { return m.Name }},
					{Name: "ID", Header: "IMAGE ID", Value: func(m move) string { return gone(m.ID) }},
					{Name: "Target", Header: "DIGEST", Value: func(m move) string {
						if m.Target == "" {
							return "-"
						}
						return output.ID(m.Target, full)
					}},
					{Name: "Here", Header: "STORED", Value: func(m move) string {
						if m.Here {
							return "yes"
						}
						return "no"
					}},
				},
			}.Print(env.Out(), format, false, moves)
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Images),
	}
	cmd.Flags().BoolVar(&full, "no-trunc", false, "Don't truncate output")
	command.FormatFlag(cmd.Flags(), &format)
	return cmd
}

// NewRollback is `tare image rollback`.
func NewRollback(env *command.Env) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "rollback [OPTIONS] NAME[:TAG]", Short: "Point a tag to what it stood for before", Args: command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			header := http.Header{}
			if named, err := reference.ParseNormalizedNamed(args[0]); err == nil {
				auth, err := env.RegistryAuth(named)
				if err != nil {
					return err
				}
				header.Set("X-Registry-Auth", auth)
			}
			var res struct{ ID, Target string }
			if err := env.Call(cmd.Context(), c, http.MethodPost, "/images/"+args[0]+"/rollback", url.Values{"to": {to}}, header, &res); err != nil {
				return err
			}
			fmt.Fprintln(env.Stdout, res.ID)
			return nil
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Images),
	}
	cmd.Flags().StringVar(&to, "to", "", "Image id or digest that the tag stood for (default: the one before the present one)")
	return cmd
}

// NewDiff is `tare image diff`.
func NewDiff(env *command.Env) *cobra.Command {
	var bytes, quiet bool
	var format string
	cmd := &cobra.Command{
		Use: "diff [OPTIONS] IMAGE_A IMAGE_B", Short: "Show which files differ between two images, and by how many bytes", Args: command.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			type difference struct {
				Path, Kind    string
				Before, After int64
			}
			var all []difference
			if err := env.Call(cmd.Context(), c, http.MethodGet, "/images/diff", url.Values{"from": {args[0]}, "to": {args[1]}}, nil, &all); err != nil {
				return err
			}
			if quiet {
				if len(all) > 0 {
					return &command.ExitError{Code: 1}
				}
				return nil
			}
			size := func(n int64) string {
				sign := ""
				if n < 0 {
					sign, n = "-", -n
				} else if n > 0 {
					sign = "+"
				}
				if bytes {
					return fmt.Sprint(sign, n)
				}
				return sign + output.Size(n)
			}
			return output.Table[difference]{
				Default: `table {{.Kind}}\t{{.Delta}}\t{{.Path}}`, Quiet: `{{.Path}}`,
				Columns: []output.Column[difference]{
					{Name: "Kind", Header: "KIND", Value: func(d difference) string { return d.Kind }},
					{Name: "Path", Header: "PATH", Value: func(d difference) string { return d.Path }},
					{Name: "Delta", Header: "BYTES", Value: func(d difference) string { return size(d.After - d.Before) }},
					{Name: "Before", Header: "BEFORE", Value: func(d difference) string { return fmt.Sprint(d.Before) }},
					{Name: "After", Header: "AFTER", Value: func(d difference) string { return fmt.Sprint(d.After) }},
				},
			}.Print(env.Out(), format, false, all)
		},
		ValidArgsFunction: command.CompleteArgs(env, command.Images, command.Images),
	}
	cmd.Flags().BoolVar(&bytes, "bytes", false, "Show sizes in bytes")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print nothing; exit with 1 if there are differences")
	command.FormatFlag(cmd.Flags(), &format)
	return cmd
}

// NewVerify is `tare image verify`, also `tare system verify`.
func NewVerify(env *command.Env) *cobra.Command {
	var repair, quiet bool
	cmd := &cobra.Command{
		Use: "verify [OPTIONS] [IMAGE...]", Short: "Check blobs and layers against their digests, all of them or those of images", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.Client(cmd.Context())
			if err != nil {
				return err
			}
			query, header := url.Values{"name": args}, http.Header{}
			if repair {
				query.Set("repair", "true")
				accounts, err := env.AllAuth()
				if err != nil {
					return err
				}
				data, err := json.Marshal(accounts)
				if err != nil {
					return err
				}
				header.Set("X-Registry-Config", base64.URLEncoding.EncodeToString(data))
			}
			var res struct {
				Blobs, Layers int
				Bytes         int64
				Damage        []struct {
					Kind, Digest, Problem, Note string
					Images                      []string
					Repaired                    bool
				}
			}
			if err := env.Call(cmd.Context(), c, http.MethodPost, "/images/verify", query, header, &res); err != nil {
				return err
			}
			left := 0
			for _, d := range res.Damage {
				state := "damaged"
				switch {
				case d.Repaired:
					state = "repaired"
				case repair:
					state = "NOT repaired"
				}
				if !d.Repaired {
					left++
				}
				fmt.Fprintf(env.Stdout, "%s %s %s", d.Kind, d.Digest, state)
				if len(d.Images) > 0 {
					fmt.Fprintf(env.Stdout, " (%s)", strings.Join(d.Images, ", "))
				}
				fmt.Fprintf(env.Stdout, ": %s\n", d.Problem)
				if d.Note != "" {
					fmt.Fprintf(env.Stdout, "    %s\n", d.Note)
				}
			}
			if !quiet {
				fmt.Fprintf(env.Stdout, "%d blobs (%s) and %d layers verified, %d damaged, %d repaired\n",
					res.Blobs, output.Size(res.Bytes), res.Layers, len(res.Damage), len(res.Damage)-left)
			}
			switch {
			case left > 0 && repair:
				return errors.New("not everything could be repaired: build, load or pull those images again")
			case left > 0:
				return errors.New("the store is damaged: --repair pulls damaged blobs again and unpacks damaged layers again")
			}
			return nil
		},
		ValidArgsFunction: command.Complete(env, command.Images),
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "Pull damaged blobs again, and unpack damaged layers again")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only show damage")
	return cmd
}
