// Package container is the commands about containers: run, create, start,
// exec, logs, ps and the rest. A container's flags (flags.go) become the body of
// a create request (request.go) without touching anything but the env files that
// they name.
package container

import (
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tare/internal/cli/command"
)

// flags are what `run` and `create` take to describe a container.
type flags struct {
	name, platform, pull string
	cidfile              string
	quiet                bool

	attach                []string
	interactive, tty      bool
	env, envFile          []string
	labels, labelFile     []string
	annotations           []string
	hostname, domainname  string
	user, workdir         string
	entrypoint            string
	expose, publish       []string
	publishAll            bool
	stopSignal            string
	stopTimeout           int
	volumes, mounts       []string
	volumesFrom, tmpfs    []string
	volumeDriver          string
	networks, aliases     []string
	ip, ip6, mac          string
	linkLocalIPs, links   []string
	dns, dnsSearch        []string
	dnsOptions, addHost   []string
	healthCmd             string
	healthInterval        time.Duration
	healthTimeout         time.Duration
	healthStartPeriod     time.Duration
	healthStartInterval   time.Duration
	healthRetries         int
	noHealthcheck         bool
	logDriver             string
	logOpts               []string
	restart               string
	rm, init, privileged  bool
	readOnly, oomDisable  bool
	capAdd, capDrop       []string
	groupAdd, securityOpt []string
	devices, deviceRules  []string
	gpus                  gpus
	sysctls, storageOpts  []string
	ulimits               []string
	runtime, isolation    string
	pid, ipc, uts         string
	userns, cgroupns      string
	cgroupParent          string
	oomScoreAdj           int
	shmSize               command.Bytes
	memory, memorySwap    command.Bytes
	memoryReservation     command.Bytes
	kernelMemory          command.Bytes
	memorySwappiness      int64
	cpus                  cpus
	cpuShares             int64
	cpuPeriod, cpuQuota   int64
	cpuRTPeriod           int64
	cpuRTRuntime          int64
	cpusetCpus            string
	cpusetMems            string
	pidsLimit             int64
	blkioWeight           uint16
	blkioWeightDevice     []string
	readBps, writeBps     []string
	readIOps, writeIOps   []string
	useAPISocket          bool
}

func (f *flags) register(fs *pflag.FlagSet) {
	fs.SetInterspersed(false)
	fs.StringVar(&f.name, "name", "", "Assign a name to the container")
	fs.StringVar(&f.platform, "platform", "", "Set platform if server is multi-platform capable")
	fs.StringVar(&f.pull, "pull", "missing", `Pull image before running ("always", "missing", "never")`)
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the pull output")
	fs.StringVar(&f.cidfile, "cidfile", "", "Write the container ID to the file")

	command.List(fs, &f.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR", checkStream)
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	command.List(fs, &f.env, "env", "e", "Set environment variables", checkVariable)
	command.List(fs, &f.envFile, "env-file", "", "Read in a file of environment variables")
	command.List(fs, &f.labels, "label", "l", "Set meta data on a container", checkLabel)
	command.List(fs, &f.labelFile, "label-file", "", "Read in a line delimited file of labels")
	command.Map(fs, &f.annotations, "annotation", "", "Add an annotation to the container (passed through to the OCI runtime)")
	fs.StringVarP(&f.hostname, "hostname", "h", "", "Container host name")
	fs.StringVar(&f.domainname, "domainname", "", "Container NIS domain name")
	fs.StringVarP(&f.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.StringVar(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	command.List(fs, &f.expose, "expose", "", "Expose a port or a range of ports")
	command.List(fs, &f.publish, "publish", "p", "Publish a container's port(s) to the host")
	fs.BoolVarP(&f.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.StringVar(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")

	command.List(fs, &f.volumes, "volume", "v", "Bind mount a volume")
	command.List(fs, &f.mounts, "mount", "", "Attach a filesystem mount to the container", checked(parseMount))
	command.List(fs, &f.volumesFrom, "volumes-from", "", "Mount volumes from the specified container(s)")
	command.List(fs, &f.tmpfs, "tmpfs", "", "Mount a tmpfs directory")
	fs.StringVar(&f.volumeDriver, "volume-driver", "", "Optional volume driver for the container")

	command.List(fs, &f.networks, "network", "", "Connect a container to a network", checkNetwork)
	command.List(fs, &f.networks, "net", "", "Connect a container to a network", checkNetwork)
	command.List(fs, &f.aliases, "network-alias", "", "Add network-scoped alias for the container")
	command.List(fs, &f.aliases, "net-alias", "", "Add network-scoped alias for the container")
	fs.StringVar(&f.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	fs.StringVar(&f.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	fs.StringVar(&f.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	command.List(fs, &f.linkLocalIPs, "link-local-ip", "", "Container IPv4/IPv6 link-local addresses")
	command.List(fs, &f.links, "link", "", "Add link to another container")
	command.List(fs, &f.dns, "dns", "", "Set custom DNS servers", checkDNS)
	command.List(fs, &f.dnsSearch, "dns-search", "", "Set custom DNS search domains")
	command.List(fs, &f.dnsOptions, "dns-option", "", "Set DNS options")
	command.List(fs, &f.dnsOptions, "dns-opt", "", "Set DNS options")
	command.List(fs, &f.addHost, "add-host", "", "Add a custom host-to-IP mapping (host:ip)", checked(parseHost))

	fs.StringVar(&f.healthCmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&f.healthInterval, "health-interval", 0, "Time between running the check (ms|s|m|h)")
	fs.DurationVar(&f.healthTimeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h)")
	fs.DurationVar(&f.healthStartPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h)")
	fs.DurationVar(&f.healthStartInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h)")
	fs.IntVar(&f.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.BoolVar(&f.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")

	fs.StringVar(&f.logDriver, "log-driver", "", "Logging driver for the container")
	command.List(fs, &f.logOpts, "log-opt", "", "Log driver options")
	fs.StringVar(&f.restart, "restart", string(container.RestartPolicyDisabled), "Restart policy to apply when a container exits")
	fs.BoolVar(&f.rm, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	fs.BoolVar(&f.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	fs.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to this container")
	fs.BoolVar(&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	command.List(fs, &f.capAdd, "cap-add", "", "Add Linux capabilities")
	command.List(fs, &f.capDrop, "cap-drop", "", "Drop Linux capabilities")
	command.List(fs, &f.groupAdd, "group-add", "", "Add additional groups to join")
	command.List(fs, &f.securityOpt, "security-opt", "", "Security Options")
	command.List(fs, &f.devices, "device", "", "Add a host device to the container")
	command.List(fs, &f.deviceRules, "device-cgroup-rule", "", "Add a rule to the cgroup allowed devices list", checkDeviceRule)
	fs.Var(&f.gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
	command.Map(fs, &f.sysctls, "sysctl", "", "Sysctl options")
	command.List(fs, &f.storageOpts, "storage-opt", "", "Storage driver options for the container")
	command.List(fs, &f.ulimits, "ulimit", "", "Ulimit options", checked(units.ParseUlimit))
	fs.StringVar(&f.runtime, "runtime", "", "Runtime to use for this container")
	fs.StringVar(&f.isolation, "isolation", "", "Container isolation technology")
	fs.StringVar(&f.pid, "pid", "", "PID namespace to use")
	fs.StringVar(&f.ipc, "ipc", "", "IPC mode to use")
	fs.StringVar(&f.uts, "uts", "", "UTS namespace to use")
	fs.StringVar(&f.userns, "userns", "", "User namespace to use")
	fs.StringVar(&f.cgroupns, "cgroupns", "", "Cgroup namespace to use (host|private)")
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.BoolVar(&f.useAPISocket, "use-api-socket", false, "Bind mount the engine's API socket and the client's credentials")

	fs.BoolVar(&f.oomDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.Var(&f.shmSize, "shm-size", "Size of /dev/shm")
	fs.VarP(&f.memory, "memory", "m", "Memory limit")
	fs.Var(&f.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Var(&f.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&f.kernelMemory, "kernel-memory", "Kernel memory limit")
	_ = fs.MarkDeprecated("kernel-memory", "the kernel has no such limit any more, and the value is not used")
	fs.Int64Var(&f.memorySwappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.Var(&f.cpus, "cpus", "Number of CPUs")
	fs.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&f.cpuRTPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&f.cpuRTRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.StringVar(&f.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Int64Var(&f.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.Uint16Var(&f.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable")
	command.List(fs, &f.blkioWeightDevice, "blkio-weight-device", "", "Block IO weight (relative device weight)", checked(parseWeight))
	command.List(fs, &f.readBps, "device-read-bps", "", "Limit read rate (bytes per second) from a device", checked(parseBytesRate))
	command.List(fs, &f.writeBps, "device-write-bps", "", "Limit write rate (bytes per second) to a device", checked(parseBytesRate))
	command.List(fs, &f.readIOps, "device-read-iops", "", "Limit read rate (IO per second) from a device", checked(parseIORate))
	command.List(fs, &f.writeIOps, "device-write-iops", "", "Limit write rate (IO per second) to a device", checked(parseIORate))
	command.ContentTrustFlag(fs)
	for _, hidden := range []string{"net", "net-alias", "dns-opt"} {
		_ = fs.MarkHidden(hidden)
	}
}

// complete says what a shell may offer.
func (f *flags) complete(env *command.Env, cmd *cobra.Command) {
	cmd.ValidArgsFunction = command.CompleteArgs(env, command.Images)
	command.CompleteFlag(cmd, env, "network", command.Networks)
	command.CompleteFlag(cmd, env, "volumes-from", command.Containers())
	command.CompleteFlag(cmd, env, "link", command.Containers())
	command.CompleteWords(cmd, "pull", "always", "missing", "never")
	command.CompleteWords(cmd, "restart", "no", "always", "unless-stopped", "on-failure")
	command.CompleteWords(cmd, "stop-signal", command.Signals...)
	command.CompleteWords(cmd, "attach", "stdin", "stdout", "stderr")
	command.CompleteWords(cmd, "log-driver", "json-file", "local", "none")
	command.CompleteWords(cmd, "cgroupns", "host", "private")
}
