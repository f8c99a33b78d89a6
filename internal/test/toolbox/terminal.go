package main

import "golang.org/x/sys/unix"

func terminalSize() (rows, cols uint16, err error) {
	ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, err
	}
	return ws.Row, ws.Col, nil
}
