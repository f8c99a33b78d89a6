package command

import (
	"context"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// Names lists what a shell may offer. It is asked while a person types, so it says nothing when it fails.
type Names func(context.Context, *client.Client) []string

// Complete offers the names for every argument, each name once.
func Complete(env *Env, list Names) cobra.CompletionFunc { return complete(env, list, nil) }

// CompleteArgs offers the names of the i-th list for the i-th argument, and nothing after the last.
func CompleteArgs(env *Env, lists ...Names) cobra.CompletionFunc { return complete(env, nil, lists) }

func complete(env *Env, all Names, each []Names) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		list := all
		if list == nil {
			if len(args) >= len(each) || each[len(args)] == nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			list = each[len(args)]
		}
		c, err := env.Client(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		names := slices.DeleteFunc(list(cmd.Context(), c), func(n string) bool { return all != nil && slices.Contains(args, n) })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// CompleteFlag offers the names for a flag's value.
func CompleteFlag(cmd *cobra.Command, env *Env, flag string, list Names) {
	f := complete(env, nil, []Names{list})
	_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return f(cmd, nil, typed)
	})
}

// CompleteWords offers fixed words for a flag's value. After one that ends in "=" more can be typed at once.
func CompleteWords(cmd *cobra.Command, flag string, words ...string) {
	directive := cobra.ShellCompDirectiveNoFileComp
	if slices.ContainsFunc(words, func(w string) bool { return strings.HasSuffix(w, "=") }) {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, directive))
}

// Signals are the ones that people send.
var Signals = []string{"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGSTOP", "SIGCONT", "SIGWINCH"}

// Containers are the names of those in one of the states, of all without.
func Containers(states ...container.ContainerState) Names {
	return func(ctx context.Context, c *client.Client) []string {
		res, err := c.ContainerList(ctx, client.ContainerListOptions{All: true})
		if err != nil {
			return nil
		}
		var names []string
		for _, s := range res.Items {
			if len(states) > 0 && !slices.Contains(states, s.State) {
				continue
			}
			for _, n := range s.Names {
				if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
					names = append(names, n)
				}
			}
		}
		return names
	}
}

// Running are the names of containers that run.
var Running = Containers(container.StateRunning)

// Images are the names of images, with tags.
func Images(ctx context.Context, c *client.Client) []string {
	res, err := c.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range res.Items {
		names = append(names, slices.DeleteFunc(s.RepoTags, func(n string) bool { return n == "<none>:<none>" })...)
	}
	return names
}

// Networks are the names of networks.
func Networks(ctx context.Context, c *client.Client) []string {
	res, err := c.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return nil
	}
	var names []string
	for _, n := range res.Items {
		names = append(names, n.Name)
	}
	return names
}

// Volumes are the names of volumes.
func Volumes(ctx context.Context, c *client.Client) []string {
	res, err := c.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return nil
	}
	var names []string
	for _, v := range res.Items {
		names = append(names, v.Name)
	}
	return names
}

// Any are the names of all that `inspect` knows.
func Any(ctx context.Context, c *client.Client) []string {
	return slices.Concat(Containers()(ctx, c), Images(ctx, c), Networks(ctx, c), Volumes(ctx, c))
}
