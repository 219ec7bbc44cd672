package unixfs

import (
	"crypto/sha256"
	"flag"
	"os"
	"testing"

	"golang.org/x/crypto/chacha20"

	"dray"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// keystream returns the first n bytes that the fixtures of IPIP-499 make from a seed: the ChaCha20 key stream under
// the seed's SHA-256 and a nonce of zeros.
func keystream(t testing.TB, seed string) *chacha20.Cipher {
	key := sha256.Sum256([]byte(seed))
	c, err := chacha20.NewUnauthenticatedCipher(key[:], make([]byte, chacha20.NonceSize))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func seeded(t testing.TB, seed string, n int) []byte {
	b := make([]byte, n)
	keystream(t, seed).XORKeyStream(b, b)
	return b
}

// The CIDs that IPIP-499 lists for files, as Kubo and js-ipfs give them.
func TestFixtureFiles(t *testing.T) {
	for _, tc := range []struct {
		name string
		p    Profile
		data []byte
		want string
	}{
		{"hello world", V0(), []byte("hello world"), "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"},
		{
			"one chunk", V0(), seeded(t, "chunk-v0-seed", 256<<10),
			"QmWmRj3dFDZdb6ABvbmKhEL6TmPbAfBZ1t5BxsEyJrcZhE",
		},
		{
			"one byte more", V0(), seeded(t, "chunk-v0-seed", 256<<10+1),
			"QmYyLxtzZyW22zpoVAtKANLRHpDjZtNeDjQdJrcQNWoRkJ",
		},
		{
			"174 chunks", V0(), seeded(t, "v0-seed", 174*256<<10),
			"QmUbBALi174SnogsUzLpYbD4xPiBSFANF4iztWCsHbMKh2",
		},
		{
			"one byte more", V0(), seeded(t, "v0-seed", 174*256<<10+1),
			"QmV81WL765sC8DXsRhE5fJv2rwhS4icHRaf3J9Zk5FdRnW",
		},
		{"empty", V0(), nil, "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"},
		{"hello world", V1(), []byte("hello world"), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"},
		{
			"one chunk", V1(), seeded(t, "chunk-v1-seed", 1<<20),
			"bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta",
		},
		{
			"one byte more", V1(), seeded(t, "chunk-v1-seed", 1<<20+1),
			"bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64",
		},
		{"empty", V1(), nil, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"},
	} {
		if root := addFile(t, tc.p, tc.data, func(dray.Block) error { return nil }); root.CID.String() != tc.want {
			t.Errorf("%s, %s: got %v, want %s", tc.p.Name, tc.name, root.CID, tc.want)
		}
	}
}

// The fixtures of 1,024 chunks of 1 MiB. Their leaves' digests lie in testdata, because making and hashing a gigabyte
// takes ten seconds; -update makes them anew. The roots would not come out right if one of them were wrong.
func TestFixtureGigabyte(t *testing.T) {
	const file = "testdata/v1-2025-leaves.sha256"
	p := V1()
	if *update {
		stream, chunk, out := keystream(t, "v1-2025-seed"), make([]byte, p.ChunkSize), []byte(nil)
		for range p.MaxLinks {
			clear(chunk)
			stream.XORKeyStream(chunk, chunk)
			sum := sha256.Sum256(chunk)
			out = append(out, sum[:]...)
		}
		last := []byte{0}
		stream.XORKeyStream(last, last)
		sum := sha256.Sum256(last)
		if err := os.WriteFile(file, append(out, sum[:]...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	digests, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		leaves int
		want   string
	}{
		{1024, "bafybeihmf37wcuvtx4hpu7he5zl5qaf2ineo2lqlfrapokkm5zzw7zyhvm"},
		{1025, "bafybeibdsi225ugbkmpbdohnxioyab6jsqrmkts3twhpvfnzp77xtzpyhe"},
	} {
		b := NewBuilder(p, func(dray.Block) error { return nil })
		for i := range tc.leaves {
			c, err := dray.CIDFromDigest(p.LeafPrefix(), digests[32*i:32*i+32])
			if err != nil {
				t.Fatal(err)
			}
			size := p.ChunkSize
			if i == 1024 {
				size = 1
			}
			if err := b.AddLeaf(c, size, size); err != nil {
				t.Fatal(err)
			}
		}
		root, err := b.Finish()
		if err != nil || root.CID.String() != tc.want {
			t.Errorf("%d leaves: got %v, want %s; %v", tc.leaves, root.CID, tc.want, err)
		}
	}
}

// The CIDs that IPIP-499 lists for directories just at and just over the size at which they become trees of shards.
func TestFixtureDirectories(t *testing.T) {
	for _, tc := range []struct {
		p             Profile
		n, size, last int // entries, and the lengths of their names
		kind          Kind
		want          string
	}{
		{V0(), 4096, 30, 30, Directory, "QmX5GtRk3TSSEHtdrykgqm4eqMEn3n2XhfkFAis5fjyZmN"},
		{V0(), 4033, 31, 31, Shard, "QmeMiJzmhpJAUgynAcxTQYek5PPKgdv3qEvFsdV3XpVnvP"},
		{V1(), 4766, 11, 21, Directory, "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4"},
		{V1(), 4766, 11, 22, Shard, "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu"},
		{V0(), 0, 0, 0, Directory, "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"},
		{V1(), 0, 0, 0, Directory, "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"},
	} {
		m := blockMap{}
		child := addFile(t, tc.p, []byte("x"), m.put)
		d := NewDirBuilder(tc.p, m.put)
		const alphabet = "abcdefghijklmnopqrstuvwxyz01234567890-_"
		stream := keystream(t, "hamt-"+tc.p.Name)
		for i := range tc.n {
			size := tc.size
			if i == tc.n-1 {
				size = tc.last
			}
			name := make([]byte, size)
			stream.XORKeyStream(name, name)
			for j, b := range name {
				name[j] = alphabet[int(b)%len(alphabet)]
			}
			if err := d.Add(string(name), child); err != nil {
				t.Fatal(err)
			}
		}
		root, err := d.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if root.CID.String() != tc.want {
			t.Errorf("%s, %d entries: got %v, want %s", tc.p.Name, tc.n, root.CID, tc.want)
		}
		if n, err := Parse(m[root.CID]); err != nil || n.Kind != tc.kind {
			t.Errorf("%s, %d entries: a %v, want a %v; %v", tc.p.Name, tc.n, n.Kind, tc.kind, err)
		}
	}
}
