// Package tensor knows what is inside the files that models are kept in: which tensors, of which type and shape, and at
// which bytes. It reads headers of safetensors, GGUF, npy and npz files, cuts files into leaves so that every tensor is a
// run of leaves of its own, and turns "these tensors, this rank's half of them" into byte ranges and into the header of a
// new safetensors file. It also holds what consumers of tensors need to say about time: the order of use, the graph of
// what is computed from what, the queues that serve them, and the marks at which a full pipe stops.
//
// # Terms
//
// A [File] is the description of one file, read from its header alone. A [Tensor] in it has a name, a [DType], a shape in
// row-major order (the last axis varies fastest) and a byte range. A [Section] is a stretch of the file with one meaning:
// header, one tensor, or what lies between. A [Slice] selects parts of one axis, in elements; [Runs] are the bytes that
// it selects. A selection is a list of patterns over names, in the grammar of [ParsePattern].
//
// Files, what describes them and names inside them come from strangers. Every reader is bounded: in memory by a small
// multiple of the header bytes that were really there, and in time linearly. What is wrong is a [*HeaderError] that
// says at which byte.
//
// # What it does not do
//
// It reads no payload, hashes nothing and moves nothing: it is pure, and package node and the command line act on what
// it says. It does not convert numbers, and it knows no model: names of architectures occur only in the table of
// [TPRules].
package tensor
