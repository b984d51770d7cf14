// Package tensors packs and unpacks the contract's tensors, and compares them.
package tensors

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
)

// PackF32 makes float32, little endian.
func PackF32(values []float32) []byte {
	data := make([]byte, 4*len(values))
	for i, value := range values {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(value))
	}
	return data
}

// UnpackF32 is the other way.
func UnpackF32(data []byte) []float32 {
	values := make([]float32, len(data)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return values
}

// PackBF16 makes the upper half of each float32, rounded to nearest, ties to even; little endian.
func PackBF16(values []float32) []byte {
	data := make([]byte, 2*len(values))
	for i, value := range values {
		bits := math.Float32bits(value)
		if value != value {
			bits |= 0x400000 // Rounding would carry a NaN with few bits into an infinity.
		} else {
			bits += 0x7fff + bits>>16&1
		}
		binary.LittleEndian.PutUint16(data[2*i:], uint16(bits>>16))
	}
	return data
}

// UnpackBF16 is the other way.
func UnpackBF16(data []byte) []float32 {
	values := make([]float32, len(data)/2)
	for i := range values {
		values[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(data[2*i:])) << 16)
	}
	return values
}

// ReadF32 reads a file of float32, little endian.
func ReadF32(folder, name string) ([]float32, error) {
	data, err := os.ReadFile(filepath.Join(folder, name))
	return UnpackF32(data), err
}

// WorstError is the norm of the difference over the norm of the expected row, of the worst token.
func WorstError(actual, expected []float32, dModel int) (worst int, largest float64) {
	for token := 0; token < len(expected)/dModel; token++ {
		var difference, norm float64
		for i := token * dModel; i < (token+1)*dModel; i++ {
			difference += math.Pow(float64(actual[i])-float64(expected[i]), 2)
			norm += math.Pow(float64(expected[i]), 2)
		}
		err := math.Sqrt(difference / norm)
		if math.IsNaN(err) {
			return token, err
		}
		if err > largest {
			worst, largest = token, err
		}
	}
	return worst, largest
}
