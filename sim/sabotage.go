package sim

import (
	"bytes"
	"time"

	mh "github.com/multiformats/go-multihash"

	"dray"
	"dray/exchange"
	"dray/wire"
)

// sabotage breaks the driver or the surroundings on purpose, so that a test sees that what watches over an invariant notices. Only
// tests set it; TestSabotage has a row for each.
type sabotage uint8

const (
	sound             sabotage = iota
	sabotageBytes              // blocks with other bytes pass for verified
	sabotageStored             // what is being written is said to be written
	sabotageSynced             // what is written is said to be synced
	sabotageUninvited          // what the engine refuses is written
	sabotageWants              // wants are lost on the way
	sabotageCancels            // cancels are lost on the way
	sabotageTwice              // answers come twice
	sabotageSilence            // some answers never come
	sabotageCancelled          // a cancel is not passed on
	sabotageOneLine            // one connection that takes nothing holds up all others
	sabotageHoard              // far more is kept for a peer than it should be
	sabotageReconnect          // what is said first on a connection that was made again is lost
	sabotageLedger             // bytes are said to be sent that are not
	sabotageStarve             // one block is never read
	sabotageForgotten          // who crashed does not fetch on
	sabotageHaves              // some of what a peer tells of leaves is lost on the way
	sabotageBan                // an honest peer is accused
)

func (h *Host) sabotaged(s sabotage) bool { return h.w.cfg.sabotage == s }

// sabotagePacket loses parts of a message for the peer at the other end of l.
func (h *Host) sabotagePacket(l *half, m *wire.Message) {
	if m.Full && l.again && h.sabotaged(sabotageReconnect) {
		m.Wants = nil
	}
	lose := func(en *wire.Entry) bool {
		return en.Cancel && h.sabotaged(sabotageCancels) || !en.Cancel && h.sabotaged(sabotageWants)
	}
	kept := m.Wants[:0]
	for i := range m.Wants {
		if !lose(&m.Wants[i]) {
			kept = append(kept, m.Wants[i])
		}
	}
	m.Wants = kept
	if h.sabotaged(sabotageHaves) && h.w.chance(0.5) {
		for i := range m.Haves {
			m.Haves[i].Bits = nil
		}
	}
}

// sabotageBlock gives a block other bytes than its CID names.
func (h *Host) sabotageBlock(b dray.Block) dray.Block {
	data := bytes.Clone(b.Data())
	data[len(data)-1] ^= 1
	sum, err := mh.Decode(b.CID().Hash())
	if err == nil {
		b, err = dray.SealBlock(b.CID(), sum.Digest, data)
	}
	if err != nil {
		panic("sim: forging a block: " + err.Error())
	}
	return b
}

// sabotageSend tells the engine of a block that was sent, which was not.
func (h *Host) sabotageSend(b exchange.BlockSend) {
	h.during(time.Microsecond, func() {
		h.e.BlockSent(h.w.now, b.Peer, b.CID)
		h.kick()
	})
}
