// The smallest useful program: asks a router for the output of one layer.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	em "expertmesh.dev/expertmesh/v1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

func main() {
	channel, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30))) // gRPC's own limit is 4 MiB.
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	answer, err := em.NewRouterClient(channel).Forward(ctx, &em.ForwardRequest{Layer: 1,
		HiddenStates: &em.Tensor{Dtype: em.Dtype_DTYPE_F32, Shape: []uint64{1, 32}, Data: make([]byte, 4*32)}})
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Reason == "EXPERTS_MISSING" {
			log.Fatalf("no node holds experts %s: try later", info.Metadata["experts"])
		}
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Output.Shape, len(answer.Output.Data), "bytes")
}
