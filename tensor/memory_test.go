package tensor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// allocated returns the bytes that f allocates, used again or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Reading a header takes memory by what is there, whatever the header says is there.
func TestHostileMemory(t *testing.T) {
	const slack = 3 << 20
	tiny := &strings.Builder{}
	tiny.WriteByte('{')
	for i := range 50_000 {
		fmt.Fprintf(tiny, `"%x":{"dtype":"U8","shape":[],"data_offsets":[%d,%d]},`, i, i, i+1)
	}
	meta := `{"__metadata__":{"a":"` + strings.Repeat(`\n`, 2<<20) + `"`
	nested := `{"a":{"x":` + strings.Repeat(`[[[[]]],`, 500_000)
	strs := newGGUF(3, 0, 1).str("k").u32(9).u32(8).u64(300_000).byte(make([]byte, 8*300_000)...)
	long := newGGUF(3, 0, 40)
	for i := range 40 {
		long.str(fmt.Sprint(i)).u32(8).str(strings.Repeat("x", 70_000))
	}
	for _, row := range []struct {
		name   string
		file   []byte
		claim  int64
		factor int
	}{
		{"claimed header", append(binary.LittleEndian.AppendUint64(nil, MaxHeader), `{"a":1`...), 1 << 50, 1},
		{"claimed npy header", append([]byte(npyMagic+"\x02\x00\x00\xff\x00\x00"), '{'), 1 << 50, 1},
		{"claimed gguf tensors", newGGUF(3, MaxTensors, ggufMaxKeys).b, 1 << 50, 1},
		{"claimed gguf strings", newGGUF(3, 0, 1).str("k").u32(9).u32(8).u64(1 << 40).b, 1 << 50, 1},
		{"tiny tensors", st(tiny.String(), 0), 0, 12},
		{"metadata", st(meta, 0), 0, 6},
		{"nested", st(nested, 0), 0, 6},
		{"gguf strings", strs.b, 0, 1},
		{"gguf long strings", long.b, 0, 1},
	} {
		size := max(int64(len(row.file)), row.claim)
		most := uint64(row.factor*len(row.file)) + slack
		if got := allocated(func() { _, _ = Read(bytes.NewReader(row.file), size) }); got > most {
			t.Errorf("%s: %d bytes allocated for %d, want at most %d", row.name, got, len(row.file), most)
		}
	}
}
