// tare-registry serves the OCI distribution API from one folder.
//
//	tare-registry --config FILE                          everything else stands in the file (docs/registry.md)
//	tare-registry --root DIR [--addr HOST:PORT] …        without a file, open to everybody who reaches it
//	tare-registry check --config FILE                    say whether the file is right
//	tare-registry user add|remove|list …                 accounts of people, while the registry runs or not
//	tare-registry robot add|remove|list …                accounts of programs
//
// SIGTERM and SIGINT let the running requests end, for at most 30 seconds; SIGHUP reopens the audit log.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"tare/internal/hub/config"
)

const usage = `Usage:  tare-registry --config FILE
        tare-registry --root DIR [--addr HOST:PORT] [--tls-cert FILE --tls-key FILE] [--quiet]
        tare-registry check --config FILE
        tare-registry user add NAME [--group NAME]... (--config FILE | --root DIR)      the password is read from standard input
        tare-registry user remove NAME (--config FILE | --root DIR)
        tare-registry user list (--config FILE | --root DIR)
        tare-registry robot add NAME --repository PATTERN... --action ACTION... [--expires DAYS] (--config FILE | --root DIR)
        tare-registry robot remove NAME (--config FILE | --root DIR)
        tare-registry robot list (--config FILE | --root DIR)
`

// errUsage asks for the usage to be printed.
var errUsage = errors.New("wrong arguments")

func main() {
	err := run(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "tare-registry:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	word := "serve"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		word, args = args[0], args[1:]
	}
	switch word {
	case "serve":
		c, err := serveFlags(args)
		if err != nil {
			return err
		}
		return serve(c)
	case "check":
		c, err := serveFlags(args)
		if err != nil {
			return err
		}
		return check(c)
	case "user", "robot":
		return account(word, args)
	}
	return errUsage
}

// flags is a set that complains like the rest of the program.
func flags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(os.Stderr)
	fs.Usage = func() {}
	return fs
}

func parse(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	return nil
}

// serveFlags makes the configuration of a file, or of flags.
func serveFlags(args []string) (*config.Config, error) {
	fs := flags("serve")
	file := fs.String("config", "", "")
	c := &config.Config{}
	fs.StringVar(&c.Root, "root", "", "")
	fs.StringVar(&c.Listen, "addr", "", "")
	fs.StringVar(&c.TLS.Cert, "tls-cert", "", "")
	fs.StringVar(&c.TLS.Key, "tls-key", "", "")
	quiet := fs.Bool("quiet", false, "")
	if err := parse(fs, args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, errUsage
	}
	if *file != "" {
		if fs.NFlag() > 1 {
			return nil, fmt.Errorf("with --config everything stands in the file: %w", errUsage)
		}
		return config.Read(*file)
	}
	if c.Root == "" || (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return nil, errUsage
	}
	if *quiet {
		c.Log.Level = "warn"
	}
	c.Complete()
	return c, nil
}
