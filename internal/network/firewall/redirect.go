package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// redirectTable is the name of the table in a container's namespace.
const redirectTable = "tare"

// Redirect sends what the calling thread's network namespace itself addresses to addr:from, TCP and UDP, to addr:to. It replaces an
// earlier Redirect. One table with one rule, written by one message of its own and not through Table: the
// namespace is a starting container's, which waits.
func Redirect(addr netip.Addr, from, to uint16) error {
	err := redirect(addr, from, to, false)
	if errors.Is(err, unix.EEXIST) {
		return redirect(addr, from, to, true)
	}
	return err
}

// redirect writes the table; to replace one makes the kernel wait for its readers, some 10 ms.
func redirect(addr netip.Addr, from, to uint16, replace bool) error {
	batch, err := redirection(addr, from, to, replace)
	if err != nil {
		return fmt.Errorf("cannot encode nft redirection: %w", err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("cannot open nftables: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("cannot write nft redirection: %w", err)
	}
	// The kernel has worked it off, and the first answer is an error or the only acknowledgement.
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT)
	if err != nil {
		return fmt.Errorf("cannot write nft redirection: %w", err)
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("cannot write nft redirection: nftables sent a broken message")
	}
	if errno := -int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); errno != 0 {
		return fmt.Errorf("cannot write nft redirection: %w", unix.Errno(errno))
	}
	return nil
}

// redirection is the whole batch: a new table, its chain, its rule; first the old table's end.
func redirection(addr netip.Addr, from, to uint16, replace bool) ([]byte, error) {
	named := func(e *netlink.AttributeEncoder) error { e.String(unix.NFTA_TABLE_NAME, redirectTable); return nil }
	chain := func(e *netlink.AttributeEncoder) error {
		e.String(unix.NFTA_CHAIN_TABLE, redirectTable)
		e.String(unix.NFTA_CHAIN_NAME, "output")
		e.Nested(unix.NFTA_CHAIN_HOOK, func(e *netlink.AttributeEncoder) error {
			e.ByteOrder = binary.BigEndian
			e.Uint32(unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_LOCAL_OUT)
			priority := *nftables.ChainPriorityNATDest
			e.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(priority))
			return nil
		})
		e.String(unix.NFTA_CHAIN_TYPE, string(nftables.ChainTypeNAT))
		return nil
	}
	rule := func(e *netlink.AttributeEncoder) error {
		e.String(unix.NFTA_RULE_TABLE, redirectTable)
		e.String(unix.NFTA_RULE_CHAIN, "output")
		e.Nested(unix.NFTA_RULE_EXPRESSIONS, func(e *netlink.AttributeEncoder) error {
			for _, x := range []expr.Any{
				&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: daddrOffset, Len: 4},
				&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: addr.AsSlice()},
				// an expression that reads a port ends the rule for packets without one
				&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.BigEndian.PutUint16(from)},
				&expr.Immediate{Register: reg1, Data: addr.AsSlice()},
				&expr.Immediate{Register: reg2, Data: binaryutil.BigEndian.PutUint16(to)},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: reg2},
			} {
				data, err := expr.Marshal(byte(nftables.TableFamilyIPv4), x)
				if err != nil {
					return err
				}
				e.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, data)
			}
			return nil
		})
		return nil
	}
	type message struct {
		kind, flags uint16
		body        func(*netlink.AttributeEncoder) error
	}
	list := []message{{unix.NFNL_MSG_BATCH_BEGIN, 0, nil}}
	if replace {
		list = append(list, message{nft(unix.NFT_MSG_DELTABLE), 0, named})
	}
	list = append(list,
		message{nft(unix.NFT_MSG_NEWTABLE), unix.NLM_F_CREATE | unix.NLM_F_EXCL, named},
		message{nft(unix.NFT_MSG_NEWCHAIN), unix.NLM_F_CREATE, chain},
		message{nft(unix.NFT_MSG_NEWRULE), unix.NLM_F_CREATE | unix.NLM_F_APPEND | unix.NLM_F_ACK, rule},
		message{unix.NFNL_MSG_BATCH_END, 0, nil})
	var batch []byte
	for _, m := range list {
		// struct nfgenmsg: family, version, subsystem of a batch in network order
		body := []byte{byte(nftables.TableFamilyIPv4), unix.NFNETLINK_V0, 0, 0}
		if m.body == nil {
			body = []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
		} else {
			e := netlink.NewAttributeEncoder()
			if err := m.body(e); err != nil {
				return nil, err
			}
			attributes, err := e.Encode()
			if err != nil {
				return nil, err
			}
			body = append(body, attributes...)
		}
		batch = binary.NativeEndian.AppendUint32(batch, uint32(unix.SizeofNlMsghdr+len(body)))
		batch = binary.NativeEndian.AppendUint16(batch, m.kind)
		batch = binary.NativeEndian.AppendUint16(batch, unix.NLM_F_REQUEST|m.flags)
		batch = append(batch, make([]byte, 8)...) // sequence and sender: there is only one answer to tell from no other
		batch = append(batch, body...)
	}
	return batch, nil
}

func nft(message uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | message }
