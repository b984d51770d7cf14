// Calls a router through generated Go stubs, and compares its answers with golden ones.
//
//	forward ROUTER GOLDEN_DIR
package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"time"

	"expertmesh.dev/examples/tensors"
	em "expertmesh.dev/expertmesh/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const timeout = 30 * time.Second

// forward sends values as one type and returns the answer, asked for as another.
func forward(router em.RouterClient, layer uint32, values []float32, dModel int, sent, answered em.Dtype) ([]float32, error) {
	data := tensors.PackF32(values)
	if sent == em.Dtype_DTYPE_BF16 {
		data = tensors.PackBF16(values)
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
		return tensors.UnpackBF16(output.GetData()), nil
	}
	return tensors.UnpackF32(output.GetData()), nil
}

// run is true when every answer is within its tolerance.
func run(address, golden string) (bool, error) {
	// Tensors are larger than gRPC's default limit of 4 MiB for a message received.
	channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
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

	hiddenStates, err := tensors.ReadF32(golden, "hidden_states.f32")
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
		expected, err := tensors.ReadF32(golden, one.name)
		if err != nil {
			return false, err
		}
		if len(actual) != len(expected) {
			return false, fmt.Errorf("the answer has %d values, %s has %d: does the router serve the golden checkpoint?",
				len(actual), one.name, len(expected))
		}
		token, relative := tensors.WorstError(actual, expected, dModel)
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
