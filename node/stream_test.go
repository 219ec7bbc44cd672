package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dray"
	"dray/exchange"
	"dray/tensor"
	"dray/transport"
	"dray/unixfs"
)

// collect reads a stream and checks that its pieces are in order. It returns the tensors in the order in which they were
// complete, and their bytes.
func collect(t *testing.T, n *Node, cfg StreamConfig) (names []string, data map[string][]byte, shapes map[string][]int64) {
	t.Helper()
	data, shapes = make(map[string][]byte), make(map[string][]int64)
	open := ""
	for p, err := range n.Stream(t.Context(), cfg) {
		if err != nil {
			t.Fatal(err)
		}
		if open != "" && open != p.Name || p.Offset != int64(len(data[p.Name])) || p.Last != (p.Offset+int64(len(p.Data)) == p.Size) {
			t.Fatalf("%q: piece at %d of %d, after %q with %d bytes", p.Name, p.Offset, p.Size, open, len(data[p.Name]))
		}
		data[p.Name] = append(data[p.Name], p.Data...)
		open = p.Name
		if p.Last {
			open = ""
			names = append(names, p.Name)
			shapes[p.Name] = p.Shape
		}
	}
	if open != "" {
		t.Errorf("%q is not complete", open)
	}
	return names, data, shapes
}

func TestStream(t *testing.T) {
	for _, l := range partLayouts() {
		mem := transport.NewMemory(transport.MemoryConfig{})
		seed := testNode(t, mem.NewHost())
		c := makeCheckpoint(t, filepath.Join(t.TempDir(), "model.safetensors"), smallModel())
		added, err := seed.Add(t.Context(), c.path, l.add)
		if err != nil {
			t.Fatal(err)
		}
		byLayers, err := tensor.Order(c.file.Names(), tensor.ByLayers)
		if err != nil {
			t.Fatal(err)
		}
		var layered []string
		for _, i := range byLayers {
			layered = append(layered, c.file.Tensors[i].Name)
		}
		backwards := slices.Clone(c.file.Names())
		slices.Reverse(backwards)
		rows := []struct {
			name string
			cfg  StreamConfig
			want []string
		}{
			{"file", StreamConfig{}, c.file.Names()},
			{"layers", StreamConfig{Selection: Selection{Order: tensor.ByLayers}}, layered},
			{"named", StreamConfig{Names: backwards}, backwards},
			{"small window", StreamConfig{Window: tensor.Marks{
				Resume: tensor.Load{Bytes: 1, Count: 1}, Pause: tensor.Load{Bytes: 2, Count: 2}, Refuse: tensor.Load{Bytes: 2, Count: 2},
			}}, c.file.Names()},
			{"rank", StreamConfig{Selection: Selection{TP: tensor.TP{Rank: 1, World: 2}}}, c.file.Names()},
		}
		for _, row := range rows {
			t.Run(l.name+"/"+row.name, func(t *testing.T) {
				n := testNode(t, mem.NewHost())
				row.cfg.TensorsConfig = TensorsConfig{Root: added.Root, Peers: peerAt(seed)}
				for range 2 { // once from the peer, once from the store
					names, data, shapes := collect(t, n, row.cfg)
					if !slices.Equal(names, row.want) {
						t.Fatalf("complete in the order %q, want %q", names, row.want)
					}
					table, err := tensor.NewTPTable(tensor.TPRules(""))
					if err != nil {
						t.Fatal(err)
					}
					for i := range c.file.Tensors {
						x := &c.file.Tensors[i]
						var sl []tensor.Slice
						if row.cfg.TP.World > 0 {
							if sl, err = row.cfg.TP.Slice(x.Name, x.Shape, table); err != nil {
								t.Fatal(err)
							}
						}
						shape, want := sliced(c, x, sl)
						if !bytes.Equal(data[x.Name], want) || !slices.Equal(shapes[x.Name], shape) {
							t.Errorf("%s: %d bytes of shape %v are not those of the source", x.Name, len(data[x.Name]), shapes[x.Name])
						}
					}
				}
				if came := n.Totals().Bytes; came > int64(len(c.data))+100_000 {
					t.Errorf("%d bytes came for %d", came, len(c.data))
				}
			})
		}
	}
}

// A tensor of very many leaves streams through a small window, and a consumer that does not go on stops the wants.
func TestStreamWindow(t *testing.T) {
	leaves := int64(5_000)
	if os.Getenv("DRAY_TEST") == "long" {
		leaves = 100_000
	}
	mem := transport.NewMemory(transport.MemoryConfig{})
	seed, n := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	small := unixfs.Native()
	small.Name, small.ChunkSize = "small", 64
	c := makeCheckpoint(t, filepath.Join(t.TempDir(), "model.safetensors"), []tensor.Entry{entry("big", "U8", leaves, 64)})
	added, err := seed.Add(t.Context(), c.path, AddConfig{Profile: small, Layout: LayoutPlain})
	if err != nil {
		t.Fatal(err)
	}
	const most = 40
	cfg := StreamConfig{
		TensorsConfig: TensorsConfig{Root: added.Root, Peers: peerAt(seed)},
		Window:        tensor.Marks{Resume: tensor.Load{Count: 10}, Pause: tensor.Load{Count: most}, Refuse: tensor.Load{Count: most}},
	}
	var got []byte
	widest, pieces := 0, 0
	for p, err := range n.Stream(t.Context(), cfg) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p.Data...)
		if pieces++; pieces%97 == 0 {
			var held exchange.Held
			n.ask(func() { held = n.engine.Held() })
			widest = max(widest, held.Wants)
		}
	}
	x := &c.file.Tensors[0]
	if !bytes.Equal(got, c.data[x.Begin:x.End]) || int64(pieces) < leaves {
		t.Errorf("%d bytes in %d pieces", len(got), pieces)
	}
	if widest > most || widest == 0 {
		t.Errorf("up to %d leaves were wanted at a time, want at most %d", widest, most)
	}
}

// A consumer that breaks off leaves nothing wanted.
func TestStreamBreak(t *testing.T) {
	mem := transport.NewMemory(transport.MemoryConfig{})
	seed, n := testNode(t, mem.NewHost()), testNode(t, mem.NewHost())
	c := makeCheckpoint(t, filepath.Join(t.TempDir(), "model.safetensors"), smallModel())
	added, err := seed.Add(t.Context(), c.path, AddConfig{Profile: unixfs.V0()})
	if err != nil {
		t.Fatal(err)
	}
	cfg := StreamConfig{TensorsConfig: TensorsConfig{Root: added.Root, Peers: peerAt(seed)}}
	for range n.Stream(t.Context(), cfg) {
		break
	}
	var held exchange.Held
	for until := time.Now().Add(10 * time.Second); ; {
		n.ask(func() { held = n.engine.Held() })
		if held.Receiving == 0 || time.Now().After(until) {
			break
		}
	}
	if held.Wants+held.Sessions > 0 || held.Receiving > 0 {
		t.Errorf("left over: %+v", held)
	}
	for until := time.Now().Add(10 * time.Second); ; {
		seed.ask(func() { held = seed.engine.Held() })
		if held.Serving == 0 && held.PeerWants == 0 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("the seed still has work: %+v", held)
		}
	}
	last := error(nil)
	for _, err := range n.Stream(t.Context(), StreamConfig{TensorsConfig: cfg.TensorsConfig, Names: []string{"nobody"}}) {
		last = err
	}
	if !errors.Is(last, dray.ErrNotFound) {
		t.Errorf("a name that does not exist: %v", last)
	}
}
