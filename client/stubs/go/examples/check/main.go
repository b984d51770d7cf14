// Checks what Go's gRPC can do with a router: one line for each of the columns.
//
//	check ROUTER GOLDEN_DIR
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"expertmesh.dev/examples/tensors"
	em "expertmesh.dev/expertmesh/v1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

const (
	timeout  = 60 * time.Second
	bigBytes = 60_000_000
)

// checker has what the columns share.
type checker struct {
	channel       *grpc.ClientConn
	router        em.RouterClient
	golden        string
	layer, dModel int
}

func (c *checker) request(id uint64, layer int, data []byte) *em.ForwardRequest {
	return &em.ForwardRequest{
		RequestId: id,
		Layer:     uint32(layer),
		HiddenStates: &em.Tensor{
			Dtype: em.Dtype_DTYPE_F32,
			Shape: []uint64{uint64(len(data) / 4 / c.dModel), uint64(c.dModel)},
			Data:  data,
		},
	}
}

// hiddenStates are the golden input, as bytes.
func (c *checker) hiddenStates() ([]byte, error) {
	values, err := tensors.ReadF32(c.golden, "hidden_states.f32")
	return tensors.PackF32(values), err
}

// isGolden compares an answer with the golden output.
func (c *checker) isGolden(data []byte) error {
	expected, err := tensors.ReadF32(c.golden, "output.f32")
	if err != nil {
		return err
	}
	actual := tensors.UnpackF32(data)
	if len(actual) != len(expected) {
		return fmt.Errorf("%d values, not %d", len(actual), len(expected))
	}
	if token, off := tensors.WorstError(actual, expected, c.dModel); !(off <= 1e-5) {
		return fmt.Errorf("error %.2e at token %d", off, token)
	}
	return nil
}

func (c *checker) unary(ctx context.Context) error {
	model, err := c.router.DescribeModel(ctx, &em.DescribeModelRequest{})
	if err != nil {
		return err
	}
	if len(model.GetLayers()) == 0 {
		return errors.New("the model has no layer")
	}
	c.layer, c.dModel = int(model.GetLayers()[0].GetLayer()), int(model.GetDModel())
	return nil
}

func (c *checker) bits(ctx context.Context) error {
	data, err := c.hiddenStates()
	if err != nil {
		return err
	}
	response, err := c.router.Forward(ctx, c.request(0, c.layer, data))
	if err != nil {
		return err
	}
	return c.isGolden(response.GetOutput().GetData())
}

// exchange sends requests on one stream and returns all answers.
func (c *checker) exchange(ctx context.Context, requests ...*em.ForwardRequest) ([]*em.ForwardResponse, error) {
	stream, err := c.router.ForwardStream(ctx)
	if err != nil {
		return nil, err
	}
	for _, request := range requests {
		if err := stream.Send(request); err != nil {
			return nil, err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	var answers []*em.ForwardResponse
	for {
		answer, err := stream.Recv()
		if err == io.EOF {
			return answers, nil
		}
		if err != nil {
			return nil, err
		}
		answers = append(answers, answer)
	}
}

func (c *checker) stream(ctx context.Context) error {
	data, err := c.hiddenStates()
	if err != nil {
		return err
	}
	answers, err := c.exchange(ctx,
		c.request(1, c.layer, data), c.request(2, c.layer, data), c.request(3, c.layer, data))
	if err != nil {
		return err
	}
	var ids []uint64
	for _, answer := range answers {
		if err := c.isGolden(answer.GetOutput().GetData()); err != nil {
			return err
		}
		ids = append(ids, answer.GetRequestId())
	}
	slices.Sort(ids)
	if !slices.Equal(ids, []uint64{1, 2, 3}) {
		return fmt.Errorf("answers to %v", ids)
	}
	return nil
}

func (c *checker) watch(ctx context.Context) error {
	watch, err := em.NewControlClient(c.channel).WatchTopology(ctx, &em.WatchTopologyRequest{})
	if err != nil {
		return err
	}
	first, err := watch.Recv()
	if err != nil {
		return err
	}
	if topology := first.GetTopology(); !topology.GetReady() || len(topology.GetNodes()) == 0 {
		return fmt.Errorf("the topology is %v", topology)
	}
	return nil
}

func (c *checker) health(ctx context.Context) error {
	for _, service := range []string{"", "ready", "expertmesh.v1.Control"} {
		answer, err := healthpb.NewHealthClient(c.channel).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			return err
		}
		if answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("%q is %v", service, answer.GetStatus())
		}
	}
	return nil
}

func (c *checker) reflection(ctx context.Context) error {
	stream, err := reflectionpb.NewServerReflectionClient(c.channel).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}); err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	for _, service := range answer.GetListServicesResponse().GetService() {
		if service.GetName() == "expertmesh.v1.Router" {
			return nil
		}
	}
	return fmt.Errorf("no Router in %v", answer)
}

// big has a message of 60 MB on the way there and back: the golden tokens, over and over.
func (c *checker) big(ctx context.Context) error {
	data, err := c.hiddenStates()
	if err != nil {
		return err
	}
	all := make([]byte, 0, bigBytes)
	for len(all)+len(data) <= bigBytes {
		all = append(all, data...)
	}
	response, err := c.router.Forward(ctx, c.request(0, c.layer, all))
	if err != nil {
		return err
	}
	output := response.GetOutput().GetData()
	if len(output) != len(all) {
		return fmt.Errorf("%d bytes, not %d", len(output), len(all))
	}
	return errors.Join(c.isGolden(output[:len(data)]), c.isGolden(output[len(output)-len(data):]))
}

// names fails unless a status says that the layer is wrong.
func names(said *spb.Status) error {
	var reason, field string
	for _, detail := range status.FromProto(said).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.GetReason()
		case *errdetails.BadRequest:
			field = detail.GetFieldViolations()[0].GetField()
		}
	}
	if codes.Code(said.GetCode()) != codes.InvalidArgument || reason != "INVALID_FIELD" || field != "layer" {
		return fmt.Errorf("code %d, reason %q, field %q", said.GetCode(), reason, field)
	}
	return nil
}

func (c *checker) errors(ctx context.Context) error {
	wrong := c.request(1, c.layer+1000, make([]byte, 4*c.dModel))
	_, err := c.router.Forward(ctx, wrong)
	if err := names(status.Convert(err).Proto()); err != nil {
		return fmt.Errorf("unary: %w", err)
	}
	answers, err := c.exchange(ctx, wrong)
	if err != nil {
		return err
	}
	if len(answers) != 1 {
		return fmt.Errorf("stream: %d answers", len(answers))
	}
	inside := answers[0].GetStatus()
	return names(&spb.Status{Code: inside.GetCode(), Message: inside.GetMessage(), Details: inside.GetDetails()})
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: check ROUTER GOLDEN_DIR")
		os.Exit(2)
	}
	channel, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer channel.Close()
	c := &checker{channel: channel, router: em.NewRouterClient(channel), golden: os.Args[2]}
	code := 0
	for _, column := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"unary", c.unary}, {"stream", c.stream}, {"watch", c.watch}, {"health", c.health},
		{"reflection", c.reflection}, {"big", c.big}, {"errors", c.errors}, {"bits", c.bits},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		err := column.run(ctx)
		cancel()
		if err != nil {
			fmt.Println(column.name, "no:", strings.Join(strings.Fields(err.Error()), " "))
			code = 1
		} else {
			fmt.Println(column.name, "yes")
		}
	}
	os.Exit(code)
}
