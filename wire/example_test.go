package wire_test

import (
	"bytes"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"

	"dray/wire"
)

var raw = cid.Prefix{Version: 1, Codec: cid.Raw, MhType: 0x12, MhLength: 32}

// A block is read from its file to behind some room, and goes out in one write.
func ExamplePutBlockHeader() {
	buf := make([]byte, wire.MaxBlockHeader+1<<20)
	io.ReadFull(bytes.NewReader(make([]byte, 1<<20)), buf[wire.MaxBlockHeader:])
	frame, err := wire.PutBlockHeader(buf, wire.V120, raw, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("% x\n", frame[:len(frame)-1<<20])
	// Output:
	// 90 80 40 0a 00 1a 8a 80 40 0a 04 01 55 12 20 12 80 80 40
}

// A stream is read one frame at a time, into memory of the caller's, and each frame is taken apart where it lies.
func ExampleFrameReader() {
	stream, _ := wire.AppendMessage(nil, wire.V120, &wire.Message{
		Blocks:       []wire.Block{{Prefix: raw, Data: []byte("hi")}},
		PendingBytes: 300,
	})
	frames := wire.FrameReader{R: bytes.NewReader(stream)}
	var m wire.Message
	for {
		frame, err := frames.Next(func(n int) []byte { return make([]byte, n) })
		if err != nil {
			fmt.Println(err)
			return
		}
		if err := wire.Decode(wire.V120, frame, &m); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%d wants, a block %q, %d bytes to come\n", len(m.Wants), m.Blocks[0].Data, m.PendingBytes)
	}
	// Output:
	// 0 wants, a block "hi", 300 bytes to come
	// EOF
}
