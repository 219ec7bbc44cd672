//go:build npm

package main

import (
	"fmt"
	"path/filepath"
	"reflect"
	"sync"
	"testing"

	"dray/hub/mirror/mirrortest"
)

// Three clients at once at three daemons, which know each other and have the same upstream: it sends the model once. Then it is
// gone, and three more clients get the same.
func TestNPMUpstream(t *testing.T) {
	dir := t.TempDir()
	dray := buildDray(t)
	files := npmModel()
	files["more.bin"] = noise(8, 40_000_000)
	up := mirrortest.New("org/model", files)
	t.Cleanup(up.Close)
	a := startProcess(t, dray, filepath.Join(dir, "a"), "--upstream", up.URL)
	b := startProcess(t, dray, filepath.Join(dir, "b"), "--upstream", up.URL, "--peer", a.addr)
	c := startProcess(t, dray, filepath.Join(dir, "c"), "--upstream", up.URL, "--peer", a.addr, "--peer", b.addr)
	want := digests(files)
	for round := range 2 {
		var wg sync.WaitGroup
		for i, d := range []*daemonProcess{a, b, c} {
			wg.Go(func() {
				var got struct {
					Snapshot map[string]string
					Slice    struct {
						Size       int64
						Head, Tail string
					}
					Safetensors struct{ Count map[string]int64 }
				}
				d.node(&got, "org/model", filepath.Join(dir, fmt.Sprint("cache", round, i)), "safetensors", "slice", "snapshot")
				if !reflect.DeepEqual(got.Snapshot, want) {
					t.Errorf("round %d, client %d: %v", round, i, got.Snapshot)
				}
				weights := files["model.safetensors"]
				if tail := sumOf(weights[len(weights)-1000:]); got.Slice.Size != int64(len(weights)) || got.Slice.Tail != tail {
					t.Errorf("round %d, client %d: slices %+v", round, i, got.Slice)
				}
				if got.Safetensors.Count["F32"] != 1_000_000 {
					t.Errorf("round %d, client %d: tensors %+v", round, i, got.Safetensors)
				}
			})
		}
		wg.Wait()
		if err := up.Once(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		t.Logf("upstream sent %.3f x the model in %d answers", float64(up.Sent())/float64(up.Size()), up.Answers())
		up.Set(func() { up.Down = true })
	}
}
