package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Docker's engine may let its FORWARD chain drop what no rule accepts, and every packet that is forwarded passes
// all chains. It leaves one chain to others, DOCKER-USER; there, and only there, we put one rule:
//
//	-m mark --mark 0x1000/0x1000 -m comment --comment tare-<instance> -j ACCEPT
//
// Our own forward chain, which comes before, sets the mark on what it accepts, so the rule stays the same
// whatever networks and ports there are. What goes on to another engine's bridge gets no mark: there that engine's rules
// decide. A bridge that a default route leaves by is none of an engine's.
const passMark = 0x1000

var (
	othersTable = &nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4}
	othersChain = &nftables.Chain{Name: "DOCKER-USER", Table: othersTable}
)

// metaOIFKind is NFT_META_OIFKIND of linux/netfilter/nf_tables.h: the kind of link a packet leaves by, padded with zeros.
const metaOIFKind expr.MetaKey = 27

func pass() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^uint32(passMark)), Xor: binaryutil.NativeEndian.PutUint32(passMark)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1, SourceRegister: true},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

func toNoBridge() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: metaOIFKind, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: ifname("bridge")},
	}
}

// Beside makes packets pass a Docker engine's firewall, now and when one comes later, until Close.
func (t *Table) Beside() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("cannot watch nftables: %w", err)
	}
	if err := c.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		c.Close()
		return fmt.Errorf("cannot watch nftables: %w", err)
	}
	t.watch = c
	go t.follow(c)
	return t.admit()
}

// follow admits us again whenever the others' chain is made.
func (t *Table) follow(c *netlink.Conn) {
	for {
		messages, err := c.Receive()
		lost := errors.Is(err, unix.ENOBUFS)
		if err != nil && !lost {
			return // closed
		}
		if !lost && !makesOthersChain(messages) {
			continue
		}
		t.mu.Lock()
		if t.watch == c {
			err = t.admit()
		}
		t.mu.Unlock()
		if err != nil && !lost {
			slog.Warn("another engine's firewall may drop our containers' packets", "error", err)
		}
	}
}

func makesOthersChain(messages []netlink.Message) bool {
	for _, m := range messages {
		if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWCHAIN || len(m.Data) < 4 || m.Data[0] != unix.NFPROTO_IPV4 {
			continue
		}
		d, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			continue
		}
		var table, chain string
		for d.Next() {
			switch d.Type() {
			case unix.NFTA_CHAIN_TABLE:
				table = d.String()
			case unix.NFTA_CHAIN_NAME:
				chain = d.String()
			}
		}
		if table == othersTable.Name && chain == othersChain.Name {
			return true
		}
	}
	return false
}

// admit adds our rule to the others' chain, if there is one, behind the rules of the administrator. The caller holds mu.
func (t *Table) admit() error {
	rules, err := t.othersRules()
	if err != nil || rules == nil {
		return err
	}
	for _, r := range rules {
		if t.ours(r) {
			return nil
		}
	}
	info := binary.NativeEndian.AppendUint32(nil, passMark)
	info = binary.NativeEndian.AppendUint32(info, passMark)
	mark := xt.Unknown(append(info, 0, 0, 0, 0)) // struct xt_mark_mtinfo1 of linux/netfilter/xt_mark.h
	r := &nftables.Rule{
		Table: othersTable, Chain: othersChain,
		UserData: userdata.AppendString(nil, userdata.TypeComment, t.table.Name),
		Exprs:    []expr.Any{&expr.Match{Name: "mark", Rev: 1, Info: &mark}, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}},
	}
	if last := len(rules) - 1; last >= 0 && returns(rules[last]) {
		r.Position = rules[last].Handle
		t.conn.InsertRule(r)
	} else {
		t.conn.AddRule(r)
	}
	return t.flush("add a rule to chain " + othersChain.Name + " for")
}

// dismiss takes our rule out of the others' chain. The caller holds mu.
func (t *Table) dismiss() error {
	rules, err := t.othersRules()
	if err != nil {
		return err
	}
	for _, r := range rules {
		if t.ours(r) {
			if err := t.conn.DelRule(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// othersRules is nil without such a chain.
func (t *Table) othersRules() ([]*nftables.Rule, error) {
	chains, err := t.conn.ListChainsOfTableFamily(othersTable.Family)
	if err != nil {
		return nil, fmt.Errorf("cannot look for chain %s: %w", othersChain.Name, err)
	}
	if !slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Table.Name == othersTable.Name && c.Name == othersChain.Name }) {
		return nil, nil
	}
	rules, err := t.conn.GetRules(othersTable, othersChain)
	if err != nil {
		return nil, fmt.Errorf("cannot read chain %s: %w", othersChain.Name, err)
	}
	if rules == nil {
		rules = []*nftables.Rule{}
	}
	return rules, nil
}

func (t *Table) ours(r *nftables.Rule) bool {
	comment, ok := userdata.GetString(r.UserData, userdata.TypeComment)
	return ok && comment == t.table.Name
}

// returns reports whether a rule is nothing but RETURN.
func returns(r *nftables.Rule) bool {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter:
		case *expr.Verdict:
			return e.Kind == expr.VerdictReturn
		default:
			return false
		}
	}
	return false
}
