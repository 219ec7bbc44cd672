package tensor

import (
	"math"
	"math/bits"
	"strings"
)

// DType is the type of a tensor's elements, as far as sizes go. Types are stored in blocks of Elems elements that take
// Bits bits together; for everything but GGUF's quantised types a block is one element. DTypes are comparable. The zero
// DType, and every one with Bits 0, is unknown: its elements cannot be counted in bytes.
type DType struct {
	// Name is what the type is called: in safetensors' spelling where there is one ("BF16"), else in ggml's ("Q4_K") or
	// numpy's (">f4").
	Name string
	// Elems is the number of elements in a block.
	Elems int64
	// Bits is the size of a block in bits.
	Bits int64
}

// Known reports whether the size of the type is known.
func (d DType) Known() bool { return d.Bits > 0 && d.Elems > 0 }

// String returns the type's name.
func (d DType) String() string { return d.Name }

// Bytes returns the size of n elements. It reports false when the type is unknown, n is negative, n elements do not fill
// whole blocks and whole bytes, or the size overflows.
func (d DType) Bytes(n int64) (int64, bool) {
	if !d.Known() || n < 0 || n%d.Elems != 0 {
		return 0, false
	}
	hi, lo := bits.Mul64(uint64(n/d.Elems), uint64(d.Bits))
	if hi>>3 != 0 || lo%8 != 0 {
		return 0, false
	}
	size := hi<<61 | lo>>3
	if size > math.MaxInt64 {
		return 0, false
	}
	return int64(size), true
}

// unit is the smallest number of elements that fills whole blocks and whole bytes.
func (d DType) unit() int64 {
	if d.Bits%8 == 0 {
		return d.Elems
	}
	n := d.Elems
	for b := d.Bits; b%8 != 0; b *= 2 {
		n *= 2
	}
	return n
}

// elements multiplies the lengths of the axes. It reports false when one is negative or the product overflows; a zero
// axis does not excuse an overflow among the others, because readers multiply in different orders.
func elements(shape []int64) (int64, bool) {
	n, zero := int64(1), false
	for _, d := range shape {
		switch {
		case d < 0:
			return 0, false
		case d == 0:
			zero = true
		case n > math.MaxInt64/d:
			return 0, false
		default:
			n *= d
		}
	}
	if zero {
		return 0, true
	}
	return n, true
}

func plain(name string, bits int64) DType { return DType{Name: name, Elems: 1, Bits: bits} }

// safetensorsTypes are the types of the safetensors format, all little-endian. F4 and F6 are the OCP microscaling types,
// packed without padding.
var safetensorsTypes = map[string]DType{
	"BOOL":        plain("BOOL", 8),
	"F4":          plain("F4", 4),
	"F6_E2M3":     plain("F6_E2M3", 6),
	"F6_E3M2":     plain("F6_E3M2", 6),
	"U8":          plain("U8", 8),
	"I8":          plain("I8", 8),
	"F8_E4M3":     plain("F8_E4M3", 8),
	"F8_E5M2":     plain("F8_E5M2", 8),
	"F8_E8M0":     plain("F8_E8M0", 8),
	"F8_E4M3FNUZ": plain("F8_E4M3FNUZ", 8),
	"F8_E5M2FNUZ": plain("F8_E5M2FNUZ", 8),
	"I16":         plain("I16", 16),
	"U16":         plain("U16", 16),
	"F16":         plain("F16", 16),
	"BF16":        plain("BF16", 16),
	"I32":         plain("I32", 32),
	"U32":         plain("U32", 32),
	"F32":         plain("F32", 32),
	"I64":         plain("I64", 64),
	"U64":         plain("U64", 64),
	"F64":         plain("F64", 64),
	"C64":         plain("C64", 64),
}

// spellings are other names of the same types, in lower case.
var spellings = map[string]string{
	"float16": "F16", "half": "F16", "bfloat16": "BF16",
	"float32": "F32", "float": "F32", "float64": "F64", "double": "F64",
	"int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
	"uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
	"complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
	"float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
}

// LookupDType returns the type that people call name, in any case: safetensors' names, ggml's, and those that numpy and
// torch print ("bfloat16"). It reports false for a name that it does not know.
func LookupDType(name string) (DType, bool) {
	if d, ok := safetensorsTypes[strings.ToUpper(name)]; ok {
		return d, true
	}
	if s, ok := spellings[strings.ToLower(name)]; ok {
		return safetensorsTypes[s], true
	}
	for _, d := range ggmlTypes {
		if strings.EqualFold(d.Name, name) {
			return d, true
		}
	}
	return DType{}, false
}

func block(name string, elems, bytes int64) DType {
	return DType{Name: name, Elems: elems, Bits: bytes * 8}
}

// ggmlTypes are the tensor types of GGUF files by their number in ggml.h. Numbers of types that were withdrawn (4, 5, 31
// to 33, 36 to 38) are left out and so unknown. The size of a block is that of the C struct; gguf-py says 40 bytes for
// Q8_1, which no file holds.
var ggmlTypes = map[uint32]DType{
	0: plain("F32", 32), 1: plain("F16", 16), 2: block("Q4_0", 32, 18), 3: block("Q4_1", 32, 20),
	6: block("Q5_0", 32, 22), 7: block("Q5_1", 32, 24), 8: block("Q8_0", 32, 34), 9: block("Q8_1", 32, 36),
	10: block("Q2_K", 256, 84), 11: block("Q3_K", 256, 110), 12: block("Q4_K", 256, 144), 13: block("Q5_K", 256, 176),
	14: block("Q6_K", 256, 210), 15: block("Q8_K", 256, 292), 16: block("IQ2_XXS", 256, 66), 17: block("IQ2_XS", 256, 74),
	18: block("IQ3_XXS", 256, 98), 19: block("IQ1_S", 256, 50), 20: block("IQ4_NL", 32, 18), 21: block("IQ3_S", 256, 110),
	22: block("IQ2_S", 256, 82), 23: block("IQ4_XS", 256, 136), 24: plain("I8", 8), 25: plain("I16", 16),
	26: plain("I32", 32), 27: plain("I64", 64), 28: plain("F64", 64), 29: block("IQ1_M", 256, 56), 30: plain("BF16", 16),
	34: block("TQ1_0", 256, 54), 35: block("TQ2_0", 256, 66), 39: block("MXFP4", 32, 17), 40: block("NVFP4", 64, 36),
	41: block("Q1_0", 128, 18), 42: block("Q2_0", 64, 18),
}
