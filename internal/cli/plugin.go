package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"tare/internal/cli/command"
)

// pluginFolders are where the stock client's plugins are, after the folder of config.json
// (https://docs.docker.com/engine/extend/cli_plugins/).
var pluginFolders = []string{
	"/usr/local/lib/docker/cli-plugins", "/usr/local/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins", "/usr/libexec/docker/cli-plugins",
}

// pluginName is compiled when it is needed: most commands are no plugins.
var pluginName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9]*$`) })

// runPlugin becomes the plugin that name stands for, like `compose` or `buildx`, with the engine that this
// program talks to. It returns only if there is none, or it can't be executed.
func runPlugin(env *command.Env, name string, args []string) (found bool, err error) {
	if !pluginName().MatchString(name) {
		return false, nil
	}
	for _, dir := range append([]string{filepath.Join(env.Folder(), "cli-plugins")}, pluginFolders...) {
		path := filepath.Join(dir, "docker-"+name)
		if st, err := os.Stat(path); err != nil || st.IsDir() || st.Mode()&0o111 == 0 {
			continue
		}
		set, err := pluginEnvironment(env)
		if err != nil {
			return true, err
		}
		err = syscall.Exec(path, append([]string{path}, args...), set)
		return true, &os.PathError{Op: "execute plugin", Path: path, Err: err}
	}
	return false, nil
}

// pluginEnvironment tells a plugin, which reads the stock client's variables, what this program goes by.
func pluginEnvironment(env *command.Env) ([]string, error) {
	to, err := env.Endpoint()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	set := map[string]string{"DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND": self, "DOCKER_CONFIG": env.Folder(), "DOCKER_HOST": to.Host, "DOCKER_CONTEXT": ""}
	if to.Context != command.DefaultContext {
		set["DOCKER_HOST"], set["DOCKER_CONTEXT"] = "", to.Context
	}
	out := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		_, ours := set[key]
		return ours
	})
	for k, v := range set {
		if v != "" {
			out = append(out, k+"="+v)
		}
	}
	slices.Sort(out)
	return out, nil
}
