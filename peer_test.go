package dray

import (
	"encoding/json"
	"testing"
)

// TestPeerIDAsText writes and reads ids whose bytes are no text.
func TestPeerIDAsText(t *testing.T) {
	for _, id := range []PeerID{"", "\x00\x04\xff\xfe\x80\x81", "\x12\x20" + PeerID(make([]byte, 32))} {
		text, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		var got PeerID
		if err := json.Unmarshal(text, &got); err != nil || got != id {
			t.Errorf("%s was read as %q, %v; want %q", text, string(got), err, string(id))
		}
	}
	got := PeerID("kept")
	if err := json.Unmarshal([]byte(`"no base58"`), &got); err == nil || got != "kept" {
		t.Errorf("what is no id was read as %q, %v", string(got), err)
	}
}
