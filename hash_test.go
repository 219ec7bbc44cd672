package dray

import (
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// Every digest that a CID may use can be computed, and CheckCID and AllowedDigest draw the same line.
func TestAllowedDigestsCanBeComputed(t *testing.T) {
	codes := []uint64{mh.MURMUR3X64_64, mh.MD5, mh.KECCAK_224, mh.KECCAK_384, mh.BLAKE2S_MIN + 19, mh.BLAKE2B_MIN + 18, 1 << 40}
	for code := range hashes {
		codes = append(codes, code)
	}
	computed := 0
	for _, code := range codes {
		for size := range MaxDigest + 2 {
			allowed := AllowedDigest(code, size)
			m, err := mh.Encode(make([]byte, size), code)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckCID(cid.NewCidV1(cid.Raw, m)); (err == nil) != allowed {
				t.Errorf("hash 0x%x with %d bytes: AllowedDigest %v, CheckCID %v", code, size, allowed, err)
			}
			if code == mh.IDENTITY {
				continue
			}
			sum, err := Sum(code, max(size, 1), nil, []byte("hi"))
			if allowed != (err == nil && size > 0) || (allowed && len(sum) != size) {
				t.Errorf("hash 0x%x with %d bytes: AllowedDigest %v, Sum %x, %v", code, size, allowed, sum, err)
			}
			if allowed {
				computed++
			}
		}
	}
	if computed == 0 {
		t.Error("nothing is allowed")
	}
}

var sinkKey string

// HashKey is the multihash, whatever the CID looks like, and takes no memory.
func TestHashKey(t *testing.T) {
	m, err := mh.Sum([]byte("a"), mh.SHA2_256, 32)
	if err != nil {
		t.Fatal(err)
	}
	long, err := mh.Sum([]byte("a"), mh.BLAKE2B_MIN+31, 32) // its code takes several bytes
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []cid.Cid{
		cid.NewCidV0(m), cid.NewCidV1(cid.Raw, m), cid.NewCidV1(cid.DagCBOR, m), cid.NewCidV1(1<<40, m), cid.NewCidV1(cid.Raw, long),
	} {
		if HashKey(c) != string(c.Hash()) {
			t.Errorf("%v has the key %x", c, HashKey(c))
		}
		if n := testing.AllocsPerRun(10, func() { sinkKey = HashKey(c) }); n != 0 {
			t.Errorf("%v: %v allocations", c, n)
		}
	}
	if HashKey(cid.Undef) != "" {
		t.Error("an undefined CID has a key")
	}
}
