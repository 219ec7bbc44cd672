package names

// What the formats are: others need other versions.
const (
	goldenCommit = "bafyreigrikbkdrlp5htcmrscw2c7dggbbe5gjgez7jhyjxbfq5zng32fhe"
	goldenRecord = "01000000086f72672f6e616d6500046d61696eabababababababababababababababababababab002401551220" +
		"9f2e6d33a3717ee826353a404ba4618d1aeeb6879ad7936bce8ed5f46814924d0024015512202b64c6d9afd8a34ed0dbf35f7de1" +
		"71a8825a50d9f42f05e98fe2b1addf00ab4400000000000000070000018bcfe56800000000000000000000260024080112208a88" +
		"e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c0040972b2476a330a3c6ed426bf69a87f0fe083c95e6" +
		"1029ba83a30eea4cceefcb032d256a7effab2bff41a09ba3a02bfb9614b71ab33c3604134a2a6bbc4684590c"

	// By `git write-tree` and `git hash-object`.
	goldenTree    = "4718253ec642e59ff66556465133edafb5dcb33c"
	goldenSubtree = "08c56681eceec443b14ad503fa7ebf1c46652c50"
	goldenPointer = "fc8e42b32efb9a9bf3ae0234a18a948e499490f8"
)
