// Calls a router through generated Go stubs, and compares its answers with golden ones.
//
//	forward ROUTER GOLDEN_DIR
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	em "expertmesh.dev/expertmesh/v1"

	"google.golang.org/grpc"
)

const timeout = 30 * time.Second

// packF32 makes float32, little endian.
func packF32(values []float32) []byte {
	data := make([]byte, 4*len(values))
	for i, value := range values {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(value))
	}
	return data
}

func unpackF32(data []byte) []float32 {
	values := make([]float32, len(data)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return values
}

// packBF16 makes the upper half of each float32, rounded to nearest, ties to even; little endian.
func packBF16(values []float32) []byte {
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

func unpackBF16(data []byte) []float32 {
	values := make([]float32, len(data)/2)
	for i := range values {
		values[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(data[2*i:])) << 16)
	}
	return values
}

func readF32(folder, name string) ([]float32, error) {
	data, err := os.ReadFile(filepath.Join(folder, name))
	return unpackF32(data), err
}

// worstError is the norm of the difference over the norm of the expected row, of the worst token.
func worstError(actual, expected []float32, dModel int) (worst int, largest float64) {
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

// forward sends values as one type and returns the answer, asked for as another.
func forward(router em.RouterClient, layer uint32, values []float32, dModel int, sent, answered em.Dtype) ([]float32, error) {
	data := packF32(values)
	if sent == em.Dtype_DTYPE_BF16 {
		data = packBF16(values)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	response, err := router.Forward(ctx, &em.ForwardRequest{
		Layer:       layer,
		OutputDtype: answered,
		HiddenStates: &em.Tensor{
			Dtype: sent,
			Shape: []uint64{uint64(len(values) / dModel), uint64(dModel)},
			Data:  data,
		},
	})
	if err != nil {
		return nil, err
	}
	output := response.GetOutput()
	if output.GetDtype() == em.Dtype_DTYPE_BF16 {
		return unpackBF16(output.GetData()), nil
	}
	return unpackF32(output.GetData()), nil
}

// run is true when every answer is within its tolerance.
func run(address, golden string) (bool, error) {
	// Tensors are larger than gRPC's default limit of 4 MiB for a message received.
	channel, err := grpc.Dial(address, grpc.WithInsecure(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return false, err
	}
	defer channel.Close()
	router := em.NewRouterClient(channel)

	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	model, err := router.DescribeModel(ctx, &em.DescribeModelRequest{})
	if err != nil {
		return false, err
	}
	layer, dModel := model.GetLayers()[0].GetLayer(), int(model.GetDModel())
	fmt.Printf("%s: %s, d_model %d, first MoE layer %d\n", address, model.GetFamily(), dModel, layer)

	hiddenStates, err := readF32(golden, "hidden_states.f32")
	if err != nil {
		return false, err
	}
	good := true
	for _, one := range []struct {
		sent, answered em.Dtype
		name           string
		tolerance      float64
	}{
		{em.Dtype_DTYPE_F32, em.Dtype_DTYPE_F32, "output.f32", 1e-5},
		{em.Dtype_DTYPE_BF16, em.Dtype_DTYPE_F32, "output_of_bf16_input.f32", 1e-5},
		{em.Dtype_DTYPE_BF16, em.Dtype_DTYPE_BF16, "output_of_bf16_input.f32", 1e-2},
	} {
		actual, err := forward(router, layer, hiddenStates, dModel, one.sent, one.answered)
		if err != nil {
			return false, err
		}
		expected, err := readF32(golden, one.name)
		if err != nil {
			return false, err
		}
		if len(actual) != len(expected) {
			return false, fmt.Errorf("the answer has %d values, %s has %d: does the router serve the golden checkpoint?",
				len(actual), one.name, len(expected))
		}
		token, relative := worstError(actual, expected, dModel)
		verdict := "ok"
		if !(relative <= one.tolerance) {
			verdict, good = "TOO LARGE", false
		}
		fmt.Printf("%v to %v: error %.2e at token %d, at most %.0e: %s\n",
			one.sent, one.answered, relative, token, one.tolerance, verdict)
	}
	return good, nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: forward ROUTER GOLDEN_DIR")
		os.Exit(2)
	}
	good, err := run(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if !good {
		os.Exit(1)
	}
}
