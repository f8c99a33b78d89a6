package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"tare/internal/hub/access"
	"tare/internal/hub/config"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(v string) error {
	*l = append(*l, strings.Split(v, ",")...)
	return nil
}

// account changes ROOT/accounts.json; a running registry takes note at the next request.
func account(kind string, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	verb, args := args[0], args[1:]
	name := ""
	if verb != "list" {
		if len(args) == 0 || strings.HasPrefix(args[0], "-") {
			return errUsage
		}
		name, args = args[0], args[1:]
	}
	fs := flags(kind)
	file, root := fs.String("config", "", ""), fs.String("root", "", "")
	var groups, repositories, actions list
	days := 0
	switch kind + " " + verb {
	case "user add":
		fs.Var(&groups, "group", "")
	case "robot add":
		fs.Var(&repositories, "repository", "")
		fs.Var(&actions, "action", "")
		fs.IntVar(&days, "expires", 0, "")
	}
	if err := parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() > 0 || (*file == "") == (*root == "") {
		return errUsage
	}
	if *file != "" {
		c, err := config.Read(*file)
		if err != nil {
			return err
		}
		*root = c.Root
	}
	if err := os.MkdirAll(*root, 0o755); err != nil {
		return err
	}
	accounts := access.OpenAccounts(*root)
	switch kind + " " + verb {
	case "user add":
		given := groups
		if !isSet(fs, "group") {
			given = nil
		}
		return addUser(accounts, name, given)
	case "robot add":
		return addRobot(accounts, name, access.Grant{Repositories: repositories, Actions: actions}, days)
	case "user remove":
		return accounts.Remove(name)
	case "robot remove":
		return accounts.Remove(access.RobotPrefix + strings.TrimPrefix(name, access.RobotPrefix))
	case "user list", "robot list":
		return show(accounts, kind == "robot")
	}
	return errUsage
}

func isSet(fs *flag.FlagSet, name string) bool {
	set := false
	fs.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// addUser reads the password from a terminal without showing it, or the first line of standard input.
func addUser(accounts *access.Accounts, name string, groups []string) error {
	var password string
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		fmt.Fprint(os.Stderr, "Password: ")
		typed, err := term.ReadPassword(fd)
		fmt.Fprintln(os.Stderr)
		if err != nil {
			return err
		}
		password = string(typed)
	} else {
		line, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		password = strings.TrimRight(line, "\r\n")
	}
	return accounts.SetUser(name, password, groups)
}

func addRobot(accounts *access.Accounts, name string, grant access.Grant, days int) error {
	var expires time.Time
	if days > 0 {
		expires = time.Now().AddDate(0, 0, days).UTC().Truncate(time.Second)
	}
	full, secret, err := accounts.AddRobot(name, []access.Grant{grant}, expires)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n", full, secret)
	return nil
}

func show(accounts *access.Accounts, robots bool) error {
	all, err := accounts.List()
	if err != nil {
		return err
	}
	for _, a := range all {
		if a.Robot() != robots {
			continue
		}
		line := a.Name
		if len(a.Groups) > 0 {
			line += "\tgroups " + strings.Join(a.Groups, ",")
		}
		for _, g := range a.Grants {
			line += "\t" + strings.Join(g.Actions, ",") + " in " + strings.Join(g.Repositories, ",")
		}
		if !a.Expires.IsZero() {
			line += "\tuntil " + a.Expires.Format(time.DateOnly)
		}
		fmt.Println(line)
	}
	return nil
}
